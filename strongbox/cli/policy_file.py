"""Policies in files: read with the line of each rule, so that a mistake is told by its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from strongbox.access.policy_engine import Rule, parse_rules
from strongbox.access.policy_validation import require_sensible
from strongbox.cli.connect import complain
from strongbox.cli.input_values import read_file, to_text
from strongbox.errors import InvalidInput

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class PolicyFile(NamedTuple):
    """A policy's rules as they were written, and the line on which each begins."""

    rules: list[dict[str, Any]]
    lines: list[int]


def read_policy(file: Path | None, name: str) -> PolicyFile:
    """A policy from a file or stdin; exits, with line and reason, when it is not one for `name`."""
    where = str(file) if file is not None else "the policy"
    text = to_text(read_file(file or Path("-")), where, "it must be JSON").removeprefix("\ufeff")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        complain(f"{where}:{error.lineno}: not JSON: {error.msg}")
    except (ValueError, RecursionError):
        complain(f"{where}: not JSON")
    if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
        complain(f'{where}: not {{"rules": […]}}')
    if document.keys() - {"rules", "name"} or document.get("name", name) != name:
        complain(f'{where}: it has fields other than "rules", or another name')
    found = PolicyFile(document["rules"], _lines_of_rules(text))
    require_sound(where, found)
    return found


def require_sound(where: str, policy: PolicyFile) -> tuple[Rule, ...]:
    """The rules; exits, with line and reason, when one is no rule, never matches, or is ambiguous."""
    for index, rule in enumerate(policy.rules):
        if not isinstance(rule, dict) or set(rule) != {"path", "capabilities"}:
            _complain(where, policy, index, 'a rule has "path" and "capabilities", and nothing else')
        words = rule["capabilities"]
        if not isinstance(rule["path"], str) or not isinstance(words, list):
            _complain(where, policy, index, "a rule's path is text, its capabilities a list of words")
        if not all(isinstance(word, str) for word in words):
            _complain(where, policy, index, "a rule's capabilities are words")
    try:
        return require_sensible(parse_rules((rule["path"], rule["capabilities"]) for rule in policy.rules))
    except InvalidInput as error:
        _complain(where, policy, int(error.metadata["index"]), error.message.partition(": ")[2])


def _complain(where: str, policy: PolicyFile, index: int, reason: str) -> NoReturn:
    line = policy.lines[index] if index < len(policy.lines) else 0
    complain(f"{where}:{line}: rule {index}: {reason}")


def _lines_of_rules(text: str) -> list[int]:
    """The line of each element of "rules" in a JSON object that is known to be sound."""
    place = _after(text, 0)
    while text[place] != "}":
        key, place = _DECODER.raw_decode(text, place)
        place = _after(text, _skip(text, place))
        if key == "rules":
            return [text.count("\n", 0, start) + 1 for start in _elements(text, place)]
        _, place = _DECODER.raw_decode(text, place)
        place = _skip(text, place)
        place = _after(text, place) if text[place] == "," else place
    return []


def _elements(text: str, place: int) -> list[int]:
    """Where each element of the array that begins at `place` begins."""
    starts = []
    place = _after(text, place)
    while text[place] != "]":
        starts.append(place)
        _, place = _DECODER.raw_decode(text, place)
        place = _skip(text, place)
        place = _after(text, place) if text[place] == "," else place
    return starts


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _after(text: str, place: int) -> int:
    """Behind one mark and the white space around it."""
    return _skip(text, _skip(text, place) + 1)
