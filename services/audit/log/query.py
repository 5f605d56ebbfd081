"""Finding entries: filters on the lines' own text, in pages from either end, with bounded work for each page.

Lines are written in one form (old ones in an earlier form), so a field can be found as a piece of text:
`"op":"ReadSecret"` stands nowhere else in a line, since a quotation mark inside a field is escaped. Strides
whose times cannot match are not read. A page ends when it is full, when `MOST` lines were looked at, or when
time is up; it says where to go on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from services.audit.log.segments import Archived, Segments
from strongbox.audit_log.chain import minimal, quoted, timestamp
from strongbox.audit_log.sparse_index import STRIDE, Stride, time_of
from strongbox.errors import InvalidInput

MOST = 100_000  # lines looked at for one page: 45 MB, a tenth of a second
_SKIPPED = 8  # a stride that is passed over counts as so many lines
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = b"~"  # after every time


class Fields(Protocol):
    """The filter fields that requests have in common."""

    path: str
    path_prefix: str
    accessor: str
    op: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Wants a line that holds one form of each needle, and whose time is in [since, until)."""

    needles: tuple[tuple[bytes, ...], ...] = ()
    since: bytes = b""
    until: bytes = _END

    def wants(self, line: bytes) -> bool:
        """Whether the line is one of those asked for."""
        for first, *others in self.needles:
            if first not in line and not any(other in line for other in others):
                return False
        return (not self.since and self.until == _END) or self.since <= time_of(line) < self.until

    def may_be_in(self, stride: Stride) -> bool:
        """Whether the times of a stride do not exclude it."""
        return stride.latest >= self.since and stride.earliest < self.until


def filter_of(asked: Fields, since: str = "", until: str = "") -> Filter:
    """The filter of a request. Raises InvalidInput."""
    wanted = (
        ("path", asked.path),
        ("accessor", asked.accessor),
        ("op", asked.op),
        ("outcome", asked.outcome),
    )
    needles = [_forms(name, value, ",") for name, value in wanted if value]
    if asked.path_prefix:
        needles.append(_forms("path", asked.path_prefix))
    return Filter(tuple(needles), _time(since, "since", b""), _time(until, "until", _END))


def _forms(name: str, value: str, after: str | None = None) -> tuple[bytes, ...]:
    """A field in the form of today's lines and of earlier ones; without `after` only its beginning."""
    both = (f'"{name}":{quote(value)}' for quote in (quoted, minimal))
    return tuple(dict.fromkeys((one[:-1] if after is None else one + after).encode() for one in both))


def _time(text: str, name: str, absent: bytes) -> bytes:
    """A time as lines have it."""
    if not text:
        return absent
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return timestamp((moment - _EPOCH) // timedelta(milliseconds=1)).encode()
    except (ValueError, OverflowError):
        raise InvalidInput(f"{name} is an RFC 3339 time, such as 2026-01-31T12:00:00Z") from None


class Page(NamedTuple):
    """Lines in the order asked for, and the index at which to go on: None when nothing is left."""

    lines: list[bytes]
    next_index: int | None


def ascending(log: Segments, wanted: Filter, start: int, end: int, limit: int, deadline: float) -> Page:
    """From entry `start` up to `end` (exclusive, no more than the log has). Blocking. Raises Archived."""
    lines: list[bytes] = []
    looked, index = 0, start
    while index < end:
        if looked >= MOST or time.monotonic() > deadline:
            return Page(lines, index)
        stop = min(end, index - index % STRIDE + STRIDE)
        if not wanted.may_be_in(log.stride_of(index)):
            looked, index = looked + _SKIPPED, stop
            continue
        looked += STRIDE
        for line in log.lines(index, stop):
            index += 1
            if wanted.wants(line):
                lines.append(line)
                if len(lines) == limit:
                    return Page(lines, index if index < end else None)
    return Page(lines, None)


def descending(log: Segments, wanted: Filter, end: int, limit: int, deadline: float) -> Page:
    """From the entry before `end` down to the first; `next_index` is the next call's `end`. Blocking.

    If older entries are archived, `next_index` is the first that is not; the call with it raises Archived.
    """
    lines: list[bytes] = []
    looked, index = 0, end
    if 0 < end <= log.first:
        raise Archived(log.first)
    while index > log.first:
        if looked >= MOST or time.monotonic() > deadline:
            return Page(lines, index)
        start = max(log.first, (index - 1) - (index - 1) % STRIDE)
        if not wanted.may_be_in(log.stride_of(start)):
            looked, index = looked + _SKIPPED, start
            continue
        looked += STRIDE
        for line in reversed(log.lines(start, index)):
            index -= 1
            if wanted.wants(line):
                lines.append(line)
                if len(lines) == limit:
                    return Page(lines, index or None)
    return Page(lines, log.first or None)
