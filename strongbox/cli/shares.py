"""Key shares in the forms in which people keep them: one or more a line, or what `operator init` printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from strongbox.cli.connect import complain
from strongbox.cli.input_values import read_secret, to_text

# What stands in a line of `operator init` that holds no share. The root token must not be sent as one.
_OTHERS = ("threshold", "root_token")


class Share(NamedTuple):
    """A share, and the line in which it stands; 0 when it has none."""

    text: str
    line: int

    def __str__(self) -> str:
        return f"the share in line {self.line}" if self.line else "a share"


def read_shares(file: Path | None) -> list[Share]:
    """The shares given, one at least."""
    raw = read_secret(file, "Key share", exact=True)
    text = to_text(raw, "a key share", "it is base64url text").removeprefix("\ufeff")
    shares = _of_json(text) if text.lstrip().startswith("{") else _of_lines(text)
    if not shares:
        complain("no key share was given")
    return shares


def _of_lines(text: str) -> list[Share]:
    shares = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if words[:1] == ["shares"]:
            words = words[1:]
        if words[:1] and words[0] in _OTHERS:
            continue
        shares += [Share(word, number) for word in words]
    return shares


def _of_json(text: str) -> list[Share]:
    try:
        found = json.loads(text)["shares"]
    except (ValueError, KeyError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(share, str) for share in found):
        complain("this is not what operator init prints as JSON")
    return [Share(share, 0) for share in found]
