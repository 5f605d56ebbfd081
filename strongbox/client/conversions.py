"""Python values as the protos want them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format, struct_pb2

from strongbox.errors import InvalidInput

LARGEST_EXACT = 2**53  # beyond it a JSON number is not the integer that was written


def to_duration(value: str | int | None) -> struct_pb2.Value | None:
    """Whole seconds, or text such as "90s" or "1h"; nothing for None."""
    if value is None:
        return None
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    return struct_pb2.Value(number_value=value)


def to_struct(data: Mapping[str, Any]) -> struct_pb2.Struct:
    """A JSON object. Raises InvalidInput, without quoting, for what would not come back as it went in."""
    _require_exact(data, 0)
    try:
        return json_format.ParseDict(dict(data), struct_pb2.Struct())
    except (json_format.ParseError, TypeError, ValueError, RecursionError):
        raise InvalidInput("data is not a JSON object") from None


def from_struct(data: struct_pb2.Struct) -> dict[str, Any]:
    """The JSON object; whole numbers are int."""
    return {name: _from_value(value) for name, value in data.fields.items()}


def _from_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_from_value(each) for each in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < LARGEST_EXACT else number
    return None if kind in (None, "null_value") else getattr(value, kind)


def _require_exact(value: Any, depth: int) -> None:
    if depth > 32:
        raise InvalidInput("data is nested more than 32 deep")
    if isinstance(value, int) and abs(value) >= LARGEST_EXACT:
        raise InvalidInput("an integer in data is beyond 2^53; write it as text")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput("JSON has no such number")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for each in inner:
        _require_exact(each, depth + 1)
