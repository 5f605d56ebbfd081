"""Refusals without a valid token: counted and recorded in a bounded way, so that they cannot fill the outbox.

* They are counted per source in memory, at most 256 sources; what comes from further ones is counted
  together.
* Every few seconds each count that is not zero becomes one audit record, put together with one of 64 slots in
  etcd, and only where that slot is absent. The audit duty frees a slot once its record is in the chain, so
  however many processes and sources there are, at most 64 such records wait in the outbox.
* A source whose slot is taken keeps counting. The slot holds the nonce of its attempt, so an attempt whose
  answer was lost is recognised, and each count is recorded once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import zlib
from dataclasses import dataclass, field

import structlog

from strongbox.errors import Overloaded, StrongBoxError
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View

SLOTS = 64
MAX_SOURCES = 256
OTHERS = "others"
OP = "CountUnauthenticated"
FLUSH_EVERY = 3.0  # seconds
_DEADLINE = 1.0  # seconds for one record
_log = structlog.get_logger(__name__)


class AlreadyCounted(StrongBoxError):
    """An earlier attempt, whose answer was lost, has put this very count."""


@dataclass(slots=True)
class Attempt:
    """A count that is being recorded; it stays the same until it is known to be in its slot."""

    count: int
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))


def slot_of(source: str) -> bytes:
    """The slot that a source uses, always the same; it only matters that there are no more than 64."""
    return keyspace.AUDIT_SLOTS + b"%02d" % (zlib.crc32(source.encode()) % SLOTS)


class Slots:
    """Counts for one process. `run` is its flush loop."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._counts: dict[str, int] = {}
        self._attempts: dict[str, Attempt] = {}

    def count(self, source: str) -> None:
        """One refusal of a request from `source` (an address) that bore no valid token."""
        if source not in self._counts and len(self._counts) >= MAX_SOURCES:
            source = OTHERS
        self._counts[source] = self._counts.get(source, 0) + 1

    async def run(self) -> None:
        """Record the counts every few seconds, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Try once to record every count; what does not go now stays counted."""
        for source in {*self._counts, *self._attempts}:
            if source not in self._attempts:
                self._attempts[source] = Attempt(self._counts.pop(source))
            if await self._record(source, self._attempts[source]):
                del self._attempts[source]

    async def _record(self, source: str, attempt: Attempt) -> bool:
        key, value = slot_of(source), f"{attempt.nonce} {attempt.count}".encode()

        def decide(view: View) -> None:
            taken = view.get(key).value
            if taken == value:
                raise AlreadyCounted
            if taken is not None:
                raise Overloaded("the slot is taken")
            view.put(key, value)

        draft = Draft(op=OP, path="", request_id="", client=source, version=attempt.count)
        try:
            await self._pipeline.submit(Work(decide, draft, time.monotonic() + _DEADLINE, always=True))
        except AlreadyCounted:
            return True
        except StrongBoxError as error:
            _log.debug("refusals stay counted", source=source, why=error.reason)
            return False
        return True
