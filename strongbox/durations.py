"""Durations in requests: `"90s"`, `"15m"`, `"1h"`, `"32d"`, `"90"`, or a whole number of seconds.

One number and at most one unit (s, m, h, d); nothing negative, no fractions, no spaces. Answers give seconds.
"""

from __future__ import annotations

import re

from google.protobuf import struct_pb2

from strongbox.errors import InvalidInput

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_TEXT = re.compile(r"([0-9]{1,10})([smhd]?)\Z", re.ASCII)
MAX_SECONDS = 100 * 365 * 86_400  # a century: beyond it is a mistake, and milliseconds stay far below 2^53


def parse_duration(value: struct_pb2.Value, field: str) -> int | None:
    """Seconds; `None` when absent or null. Raises `InvalidInput`, naming `field`."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "number_value":
        return _from_number(value.number_value, field)
    if kind == "string_value":
        return _from_text(value.string_value, field)
    raise InvalidInput(f'{field} is a duration such as "90s" or "1h", or whole seconds')


def _from_number(number: float, field: str) -> int:
    if not number.is_integer() or not 0 <= number <= MAX_SECONDS:
        raise InvalidInput(f"{field} is a whole number of seconds from 0 to {MAX_SECONDS}")
    return int(number)


def _from_text(text: str, field: str) -> int:
    found = _TEXT.match(text)
    if found is None:
        raise InvalidInput(f'{field} is a duration such as "90s", "15m", "1h" or "32d"')
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > MAX_SECONDS:
        raise InvalidInput(f"{field} is at most {MAX_SECONDS} seconds")
    return seconds
