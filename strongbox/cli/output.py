"""Answers as a table for people or as JSON, with REST's names, for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="table or json.")]


_before: ContextVar[Format] = ContextVar("before", default=Format.TABLE)


def choose(output: Output = Format.TABLE) -> None:
    """Take `-o` before the command as well as after it, as kubectl does."""
    _before.set(output)


def is_json(how: Format) -> bool:
    """Whether JSON is asked for, before the command or after it."""
    return Format.JSON in (how, _before.get())


def to_dict(message: Message) -> dict[str, Any]:
    """The message as REST has it: snake_case, zero values printed, in the order of the proto."""
    from google.protobuf.json_format import MessageToDict

    facts = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {field.name: facts[field.name] for field in message.DESCRIPTOR.fields if field.name in facts}


def to_timestamp(moment: datetime) -> str:
    """RFC 3339 as REST has it."""
    from google.protobuf.timestamp_pb2 import Timestamp

    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp.ToJsonString()


# What a terminal obeys instead of showing it: C0 but tab and line feed, DEL, C1, and marks that change the
# direction of text.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text, with what a terminal would obey written out as JSON does; who wrote a value is a stranger."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str, *, nl: bool = True) -> None:
    """Print it: into a pipe or file exactly as it is, on a terminal what it would obey written out."""
    # With `color` nothing is taken away: the default silently removes sequences of ESC from what is piped.
    typer.echo(visible(text) if sys.stdout.isatty() else text, nl=nl, color=True)


def say_bytes(raw: bytes) -> None:
    """The same for bytes, which get no line end."""
    if sys.stdout.isatty():
        say(raw.decode("utf-8", errors="backslashreplace"), nl=False)
    else:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()


def show(facts: Mapping[str, Any], how: Format) -> None:
    """One thing: a line per field."""
    if is_json(how):
        say(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        say(f"{name:{width}}  {_cell(value)}")


def show_line(facts: Mapping[str, Any], how: Format) -> None:
    """One of many things that come one after the other: a line, as JSON an object in a line."""
    if is_json(how):
        say(json.dumps(facts, ensure_ascii=False))
    else:
        say("  ".join(f"{_cell(value)}" for value in facts.values()))


def show_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], how: Format) -> None:
    """Many things: a line each, of these columns; JSON has all fields."""
    found = list(rows)
    if is_json(how):
        say(json.dumps(found, indent=2, ensure_ascii=False))
        return
    lines = [list(columns), *([_cell(row.get(column, "")) for column in columns] for row in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        say("  ".join(padded).rstrip())


def show_names(names: Iterable[str], how: Format) -> None:
    """Names: one a line."""
    if is_json(how):
        say(json.dumps(list(names), indent=2, ensure_ascii=False))
        return
    for name in names:
        say(name)


def _cell(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return " ".join(value)
    return json.dumps(value, ensure_ascii=False)
