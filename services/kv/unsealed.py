"""After `seal` has answered no value leaves kv: what is about to be told is still covered by its own proof.

A read's transaction compares the seal state, so at a moment not before it was sent the cluster was
unsealed. `seal` answers no earlier than `STANDS_FOR` after the state was changed, unless whoever might tell
a value has said that it no longer does. So a value is told within `STANDS_FOR` of sending that transaction,
by the monotonic clock, which goes on while a process is stopped; and not when the record keys were dropped
since, even if others have come (the cluster was sealed and unsealed).
"""

from __future__ import annotations

import time
from typing import NamedTuple

from services.kv.datakeys import Keys
from strongbox.errors import NoQuorum, Sealed

STANDS_FOR = 2.0  # seconds: strongbox.rpc.keys.FORGET_AFTER, and what seal waits for beside a margin


class Moment(NamedTuple):
    """When a proof was sent, and in which time between two seals."""

    generation: int
    at: float


class Unsealed:
    """One per process."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._generation = 0
        keys.on_sealed(self._sealed)

    def now(self) -> Moment:
        """The moment before a proof is sent."""
        return Moment(self._generation, time.monotonic())

    def require(self, since: Moment) -> None:
        """The last thing before a value is told. Raises `Sealed`, `NoQuorum`."""
        if self._keys.record_keys is None or since.generation != self._generation:
            raise Sealed
        if time.monotonic() - since.at >= STANDS_FOR:
            raise NoQuorum("what was read can no longer be told: its proof is too old; try again")

    def _sealed(self) -> None:
        self._generation += 1
