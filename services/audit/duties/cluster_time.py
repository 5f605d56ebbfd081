"""The cluster's time, which expiries are compared with: how far one put may move it.

It never goes back and advances at most by the holder's own monotonic time since the first put of its
term (what it lost while the holder's clock was behind is made up once that is right again). At takeover it
goes to the holder's clock if that is later, but no further than the median of the clocks that live replicas
report, and `CLOCK_AGE` beyond (a report can be that old): one clock that is far ahead cannot end everything
that expires.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from strongbox.process.presence import told_in
from strongbox.store.etcd.client import KV

CLOCK_AGE = 6_000  # milliseconds; sessions write their clock every 5 s


class Begun(NamedTuple):
    """The first put of a term: the time that was put (milliseconds), and when (monotonic seconds)."""

    value_ms: int
    at: float

    def allowance(self, now: float, known_ms: int) -> int:
        """By how much the time may advance at monotonic `now`, in milliseconds."""
        return max(0, self.value_ms + int((now - self.at) * 1000) - known_ms)


def next_time(known_ms: int, clock_ms: int, elapsed_ms: int | None, clocks: Sequence[int] = ()) -> int:
    """The time to put: never before `known_ms`; after the first put of a term at most `elapsed_ms` later.

    At takeover (`elapsed_ms` None) the holder's clock counts, as far as the replicas' `clocks` bear it out.
    """
    limit = clock_ms if not clocks else int(statistics.median(clocks)) + CLOCK_AGE
    if elapsed_ms is not None:
        limit = known_ms + elapsed_ms
    return max(known_ms, min(clock_ms, limit))


def clocks_of(sessions: Sequence[KV]) -> tuple[int, ...]:
    """The clocks (milliseconds since the epoch) that live replicas report in their session keys."""
    told = (_clock_of(row.value) for row in sessions)
    return tuple(clock for clock in told if clock)


def _clock_of(value: bytes) -> int:
    told = told_in(value).get("clock_ms")
    return told if isinstance(told, int) else 0
