"""Durations as clients send them."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2

from strongbox.durations import parse_duration
from strongbox.errors import InvalidInput


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [("90s", 90), ("15m", 900), ("1h", 3600), ("32d", 2_764_800), ("90", 90), (90.0, 90), (0.0, 0)],
)
def test_texts_with_a_unit_and_whole_numbers_are_durations(sent: str | float, seconds: int) -> None:
    assert parse_duration(_value(sent), "ttl") == seconds


def test_absent_and_null_are_not_asked() -> None:
    null = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    for value in (struct_pb2.Value(), null):
        assert parse_duration(value, "ttl") is None


@pytest.mark.parametrize(
    "sent",
    ["", "1 h", "-1s", "1.5h", "1h30m", "h", "1w", "\u0661s", "99999999999s", "9999999d", "1h\n", " 1h",
     -1.0, 1.5, float("nan"), float("inf"), 1e30, True],
)  # fmt: skip
def test_anything_else_is_refused_and_the_field_is_named(sent: str | float | bool) -> None:
    with pytest.raises(InvalidInput, match="max_ttl"):
        parse_duration(_value(sent), "max_ttl")


def _value(sent: str | float | bool) -> struct_pb2.Value:
    if isinstance(sent, bool):
        return struct_pb2.Value(bool_value=sent)
    if isinstance(sent, str):
        return struct_pb2.Value(string_value=sent)
    return struct_pb2.Value(number_value=sent)
