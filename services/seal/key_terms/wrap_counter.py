"""Wraps are counted in ranges that are reserved in etcd before they are used, and end before 2^31.

GCM under one key with random nonces is sound for 2^32 seals (SP 800-38D §8.3: a nonce repeats with chance
2^-32); a term is retired at half of that. Each purpose has a key of its own, so counting all purposes
together is on the safe side, and so is losing the unused part of a range when a process dies.

    seal/wraps/<term>          how many are reserved, by all replicas together; compared and moved
    seal/wraps/<term>/<node>   how many reserved wraps a replica has not used, once a second; only for status
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from strongbox.errors import Overloaded, StrongBoxError
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View

LIMIT = 1 << 31
RETIRE_AT = LIMIT - (1 << 27)  # a new term is begun while 134 million are left: hours at any rate seen
RANGE = 4096  # wraps that one transaction reserves
_WITHIN = 1.0  # seconds for reserving
_TELL_EVERY = 1.0  # seconds
_log = structlog.get_logger(__name__)


def reserve(view: View, term: int, count: int) -> int:
    """Reserve `count` wraps of `term`; returns the total. Raises Overloaded when the term has none left."""
    key = keyspace.wraps(term)
    total = int(view.get(key).value or b"0") + count
    if total > LIMIT:
        raise Overloaded("the key term has no wraps left; it has to be rotated")
    view.put(key, b"%d" % total)
    return total


class Wraps:
    """The reserved wraps that this replica has not used yet."""

    def __init__(self, pipeline: Pipeline, node: str) -> None:
        self._pipeline, self._node = pipeline, node
        self._term = self._left = 0
        self._reserving = asyncio.Lock()
        self._told: tuple[int, int] = (0, 0)

    def take(self, term: int, count: int) -> bool:
        """Use `count` reserved wraps of `term`; False: `reserve` first."""
        if term != self._term or count > self._left:
            return False
        self._left -= count
        return True

    async def reserve(self, term: int, count: int) -> None:
        """Have at least `count` wraps of `term`. Raises Overloaded, NoQuorum, UnknownOutcome."""
        async with self._reserving:
            if term == self._term and count <= self._left:
                return
            more = max(RANGE, count)
            deadline = time.monotonic() + _WITHIN
            # If the outcome is unknown, that range is not used; the next call reserves another one.
            await self._pipeline.submit(Work(lambda view: reserve(view, term, more), None, deadline))
            self._left = more + (self._left if term == self._term else 0)
            self._term = term

    async def run(self) -> None:
        """For ever: write how many are unused."""
        while True:
            await asyncio.sleep(_TELL_EVERY)
            term, left = self._term, self._left
            if (term, left) == self._told:
                continue
            key = keyspace.wraps(term) + b"/" + self._node.encode()
            work = Work(_putting(key, b"%d" % left), None, time.monotonic() + _WITHIN)
            try:
                await self._pipeline.submit(work)
                self._told = term, left
            except StrongBoxError as error:
                _log.info("how many wraps are left was not told", why=error.reason)


def _putting(key: bytes, value: bytes) -> Callable[[View], None]:
    # Bound here: a late decision must not put the count of a later round.
    return lambda view: view.put(key, value)


def used(rows: list[tuple[bytes, bytes]], term: int) -> int:
    """From the rows of `seal/wraps/<term>` and below: how many wraps were used, at most."""
    own = keyspace.wraps(term)
    counts = {key: int(value) for key, value in rows if key == own or key.startswith(own + b"/")}
    return max(0, counts.pop(own, 0) - sum(counts.values()))
