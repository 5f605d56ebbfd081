"""Answers as a table for people or as JSON, with REST's names, for programs."""

from __future__ import annotations

import json
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


def _is_json(how: Format) -> bool:
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


def show(facts: Mapping[str, Any], how: Format) -> None:
    """One thing: a line per field."""
    if _is_json(how):
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        typer.echo(f"{name:{width}}  {_cell(value)}")


def show_line(facts: Mapping[str, Any], how: Format) -> None:
    """One of many things that come one after the other: a line, as JSON an object in a line."""
    if _is_json(how):
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        typer.echo("  ".join(f"{_cell(value)}" for value in facts.values()))


def show_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], how: Format) -> None:
    """Many things: a line each, of these columns; JSON has all fields."""
    found = list(rows)
    if _is_json(how):
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    lines = [list(columns), *([_cell(row.get(column, "")) for column in columns] for row in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def show_names(names: Iterable[str], how: Format) -> None:
    """Names: one a line."""
    if _is_json(how):
        typer.echo(json.dumps(list(names), indent=2, ensure_ascii=False))
        return
    for name in names:
        typer.echo(name)


def _cell(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return " ".join(value)
    return json.dumps(value, ensure_ascii=False)
