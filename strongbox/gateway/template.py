"""The three marks of gateway/envoy.yaml: `@NAME@`, `#each LIST … #end LIST`, `#if WORD … #end WORD`.

A mark stands for a whole value and is replaced by its JSON, which is YAML whatever the text in it: a quote or
a backslash in a file's name breaks nothing. So no mark stands within quotes, or beside other text of a value.
Strict: a value that is not given and a block that is not closed raise TemplateError. Blocks do not nest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]
_MARK = re.compile(r"@([A-Z][A-Z_]*)@")
_OPEN = re.compile(r"\s*#(each|if) ([A-Z_]+)\Z")


class TemplateError(Exception):
    """The template and what it is rendered with do not fit."""


Lists = Mapping[str, Sequence[Values]]


def render(text: str, values: Values, lists: Lists, words: Mapping[str, bool]) -> str:
    """`text` with every mark replaced; an element of a list sees its own values first, then `values`."""
    out: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        opened = _OPEN.match(line)
        if not opened:
            out.append(_fill(line, values))
            continue
        kind, name = opened.groups()
        block = list(_until_end(lines, name))
        for inner in _contexts(kind, name, lists, words):
            out += [_fill(each, {**values, **inner}) for each in block]
    return "\n".join(out) + "\n"


def _contexts(kind: str, name: str, lists: Lists, words: Mapping[str, bool]) -> Sequence[Values]:
    try:
        return lists[name] if kind == "each" else ([{}] if words[name] else [])
    except KeyError:
        raise TemplateError(f"nothing is given for #{kind} {name}") from None


def _until_end(lines: Iterator[str], name: str) -> Iterator[str]:
    for line in lines:
        if line.strip() == f"#end {name}":
            return
        yield line
    raise TemplateError(f"{name} is not closed")


def _fill(line: str, values: Values) -> str:
    if line.lstrip().startswith("# "):
        return line

    def value(mark: re.Match[str]) -> str:
        try:
            # As it is, not as \u…: YAML reads a character beyond 16 bits otherwise than JSON does.
            return json.dumps(values[mark[1]], ensure_ascii=False)
        except KeyError:
            raise TemplateError(f"no value for @{mark[1]}@") from None

    return _MARK.sub(value, line)
