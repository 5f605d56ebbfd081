"""Admission: what may still be put, by what it does to etcd's space and by how full etcd is.

    effect    refused from      (shares of etcd's `--quota-backend-bytes`, in use | of the file)
    GROWS     70 % | 85 %       a new key, a longer value, or values or audit records so large that they count
    NEUTRAL   85 % | 93 %       what leaves no more than its audit record: a read, a counter that moves
    FREES     never             what takes away more than it puts
    SAFETY    never             seal, unseal, revocations, marks: work that must go on, though it puts keys

* So StrongBox's own quota is 85 % of etcd's: the rest is the reserve for what frees and for safety.
* etcd raises its alarm by the *file*; pages that are free inside the file are used again before it grows.
  So both are looked at. What is neutral may go on up to `REUSED` of the file while a tenth of the quota is
  free inside it: it puts a page or two, which come from there, and defragmenting has its turn meanwhile.
* What kv's keeper measures stands in one key (`cluster/room`), which every batch's answer brings along, so
  knowing it costs no call. A request is refused only by a measurement read since it came.
* Between two measurements this process counts what it puts itself. For growth it assumes that `REPLICAS` do
  the same. For what is neutral its own count is taken once: the reserve has room for what the others put in a
  second or two, while counting a burst three times would refuse reads in a store that has room for them.
* Without a new measurement for `STALE`, only growth is refused, as what is counted is never taken off again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from strongbox.errors import Overloaded

REPLICAS = 3  # of a service: what one of them has put the others may have put as well
SLACK = 64  # bytes that an existing key may become longer by, such as a counter
HISTORY = 16 << 10  # bytes in one decision: what they replace, and its audit records, stay for a while
RECORDS = 64 << 10  # bytes of audit records in one decision: fewer do not count as growth, so reads go on
PER_KEY = 128  # bytes that etcd keeps for a key beside its name and value
STALE = 30.0  # seconds without a new measurement after which what was measured refuses growth only
_STEP = 16  # revisions that are counted as one
_MOST = 4096  # such steps


class Effect(Enum):
    """What a decision does to etcd's space."""

    GROWS = auto()
    NEUTRAL = auto()
    FREES = auto()
    SAFETY = auto()


STRENGTH = (None, Effect.GROWS, Effect.NEUTRAL, Effect.FREES, Effect.SAFETY)  # weakest first: `View.means`


class Limit(NamedTuple):
    """Shares of the quota from which an effect is refused."""

    in_use: float
    file: float


REUSED, FREE_INSIDE = 0.97, 0.10  # shares of the quota
LIMITS = {Effect.GROWS: Limit(0.70, 0.85), Effect.NEUTRAL: Limit(0.85, 0.93)}


class Room(NamedTuple):
    """What was measured of the fullest member, in bytes; puts up to `revision` are in it."""

    revision: int
    file: int
    in_use: int
    quota: int
    keeper: str

    def pack(self) -> bytes:
        """As it is stored."""
        return f"{self.revision} {self.file} {self.in_use} {self.quota} {self.keeper}".encode()

    @classmethod
    def parse(cls, _: bytes, value: bytes) -> Room:
        """`NOTHING_KNOWN` for what cannot be parsed, such as another version's; the keeper puts it anew."""
        try:
            revision, file, in_use, quota, keeper = value.decode().split(" ", 4)
            return cls(int(revision), int(file), int(in_use), int(quota), keeper)
        except ValueError:
            return NOTHING_KNOWN


NOTHING_KNOWN = Room(0, 0, 0, 0, "")


class Space:
    """What one process knows of etcd's space. `quota` is etcd's, in bytes; 0: nothing is ever refused."""

    def __init__(self, quota: int = 0) -> None:
        self.quota = quota
        self._puts: deque[tuple[int, int]] = deque()  # (etcd revision, bytes), oldest first
        self._own = 0
        self._seen, self._moved_at = 0, time.monotonic()  # the newest measurement's revision, and since when

    def put(self, revision: int, size: int) -> None:
        """This process has put so many bytes, at this revision."""
        if not size or not self.quota:
            return
        self._own += size
        if self._puts and self._puts[-1][0] // _STEP == revision // _STEP:
            size += self._puts.pop()[1]
        self._puts.append((revision, size))
        if len(self._puts) > _MOST:  # nobody measures: nothing will be taken off soon
            oldest = self._puts.popleft()
            self._puts[0] = (self._puts[0][0], self._puts[0][1] + oldest[1])

    def refuses(self, effect: Effect, room: Room) -> bool:
        """Whether a decision with this effect is refused, as far as is known."""
        limit = LIMITS.get(effect)
        if limit is None or not self.quota:
            return False
        if self._is_stale(room) and effect is not Effect.GROWS:
            return False
        in_use, file = self._estimate(room, REPLICAS if effect is Effect.GROWS else 1)
        file_limit = limit.file
        if effect is Effect.NEUTRAL and file - in_use >= FREE_INSIDE * self.quota:
            file_limit = REUSED
        return in_use >= limit.in_use * self.quota or file >= file_limit * self.quota

    def _is_stale(self, room: Room) -> bool:
        """Whether nobody has measured for long: then measurement and count are both out of date."""
        now = time.monotonic()
        if room.revision not in {0, self._seen}:
            self._seen, self._moved_at = room.revision, now
        return now - self._moved_at >= STALE

    def refusal(self, effect: Effect) -> Overloaded:
        """The error that a decision with this effect is refused with."""
        if effect is Effect.GROWS:
            return Overloaded(
                "etcd's space is nearly used up: nothing that grows it is taken until there is room"
            )
        return Overloaded("etcd's space is used up: only what frees some, or ends something, is taken")

    def _estimate(self, room: Room, replicas: int) -> tuple[int, int]:
        while self._puts and self._puts[0][0] <= room.revision:
            self._own -= self._puts.popleft()[1]
        in_use = room.in_use + replicas * self._own
        return in_use, max(room.file, in_use)


def bytes_of(puts: dict[bytes, bytes]) -> int:
    """What etcd keeps for these, roughly."""
    return sum(PER_KEY + len(key) + len(value) for key, value in puts.items())


def effect_of(
    puts: dict[bytes, bytes],
    deletes: set[bytes],
    reads: dict[bytes, int],
    old: Callable[[bytes], bytes | None],
    records: int = 0,
) -> Effect:
    """A decision's effect where it does not say. `old`: what a key is known to hold; None: absent or unknown.
    `records`: bytes of its audit records, which stay until the audit duty has taken them over.

    A key that is deleted without having been read counts as there: index entries are moved like that.
    """
    keys = longer = 0
    for key, value in puts.items():
        known = old(key)
        keys += known is None and not reads.get(key)
        longer += len(value) - len(known or b"")
    for key in deletes:
        keys -= reads.get(key) != 0
        longer -= len(old(key) or b"")
    is_long = longer > SLACK + max(0, -keys) * PER_KEY
    if keys > 0 or is_long or sum(map(len, puts.values())) + records > HISTORY:
        return Effect.GROWS
    return Effect.FREES if keys < 0 or longer < 0 else Effect.NEUTRAL
