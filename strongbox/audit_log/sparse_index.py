"""Where entries stand, kept in memory for every 256: where the first one is, and the span of their times.

Some 250 bytes a stride, so a megabyte for a million entries. Times of entries are those of their producers
and not quite in order, so a search by time skips the strides that cannot hold any, and looks at the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

STRIDE = 256
_TIME = b'"ts":"'
_TIME_BYTES = 24  # 2026-01-31T12:00:00.123Z


@dataclass(slots=True)
class Stride:
    """Up to 256 entries. `earliest` and `latest` are times as they stand in the lines."""

    segment: int
    offset: int
    earliest: bytes
    latest: bytes


class Places:
    """The strides of one log, from the one that holds its first entry on."""

    def __init__(self, first: int = 0, strides: Iterable[Stride] = ()) -> None:
        self.first = first
        self._strides = list(strides)

    def __len__(self) -> int:
        return len(self._strides)

    def count(self, index: int, line: bytes, segment: int, offset: int) -> None:
        """Note where entry `index` stands."""
        time = time_of(line)
        if index % STRIDE == 0 or not self._strides:
            self._strides.append(Stride(segment, offset, time, time))
            return
        stride = self._strides[-1]
        stride.earliest = min(stride.earliest, time)
        stride.latest = max(stride.latest, time)

    def of(self, index: int) -> Stride:
        """The stride that an entry is in. Raises IndexError."""
        if index < self.first:
            raise IndexError(index)
        return self._strides[index // STRIDE - self.first // STRIDE]

    def start_of(self, index: int) -> int:
        """The first entry of the stride that an entry is in."""
        return max(self.first, index - index % STRIDE)

    def beginning_at(self, first: int, segment: int) -> Places:
        """Those from entry `first` on, which stands at the beginning of `segment`."""
        left = self._strides[first // STRIDE - self.first // STRIDE :]
        if left and first % STRIDE:  # its times stay: those of entries that are gone only widen them
            left[0] = replace(left[0], segment=segment, offset=0)
        return Places(first, left)


def time_of(line: bytes) -> bytes:
    """The time of an entry's line; any bytes for a line that is no entry."""
    start = line.find(_TIME) + len(_TIME)
    return line[start : start + _TIME_BYTES]
