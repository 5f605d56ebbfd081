"""The duties of the lease service: reap what is due, and revoke what revoked tokens held.

Nothing depends on them being prompt: an expired lease is told as expired, and a revoked token reads nothing.
What each step decides is in `due`. Work that is late is stopped by the fence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

import structlog

from services.lease import due
from strongbox.access.lookup import Lookup
from strongbox.clock import Clock
from strongbox.errors import StrongBoxError
from strongbox.store import keyspace
from strongbox.store.batch import Row
from strongbox.store.client import Etcd
from strongbox.store.errors import Compacted, EtcdError
from strongbox.store.pipeline import Outcome, Pipeline, Work
from strongbox.store.view import View
from strongbox.store.watch import Kind, watch

T = TypeVar("T")
_log = structlog.get_logger(__name__)
PAUSE = 2.0  # seconds between passes that found less than a slice, and after a failure
DEADLINE = 5.0  # seconds for one transaction


class _Duty:
    """What both have in common."""

    def __init__(self, pipeline: Pipeline, lookup: Lookup) -> None:
        self._pipeline, self._lookup = pipeline, lookup

    async def _submit(self, decide: Callable[[View], T]) -> Outcome[T]:
        return await self._pipeline.submit(Work(decide, None, time.monotonic() + DEADLINE))


class Reaper(_Duty):
    """Reaps what is due, a slice at a time."""

    def __init__(self, pipeline: Pipeline, lookup: Lookup, clock: Clock) -> None:
        super().__init__(pipeline, lookup)
        self._clock = clock

    async def work(self, term: due.Fence) -> None:
        """Reap until cancelled, when the term is over."""
        while True:
            try:
                reaped = await self.one_pass(term)
            except StrongBoxError as error:  # sealed, or no quorum: what is due stays due
                _log.info("reaping waits", reason=error.reason)
                reaped = 0
            if reaped < due.SLICE:
                await asyncio.sleep(PAUSE)

    async def one_pass(self, term: due.Fence) -> int:
        """Settle one slice; returns how many entries were due."""
        now_ms = self._clock.now_ms()
        rows = (await self._submit(lambda view: due.read_due(view, term, now_ms))).rows
        await asyncio.gather(*(self._settle(term, row.key) for row in rows))
        return len(rows)

    async def _settle(self, term: due.Fence, key: bytes) -> None:
        await self._submit(lambda view: due.settle(view, term, self._lookup.require_keys(), key))


class Follower(_Duty):
    """Follows the markers of revoked tokens with a cursor of its own: lists what is new, then watches."""

    def __init__(self, pipeline: Pipeline, lookup: Lookup, etcd: Etcd) -> None:
        super().__init__(pipeline, lookup)
        self._etcd = etcd

    async def work(self, term: due.Fence) -> None:
        """Follow until cancelled, when the term is over."""
        while True:
            try:
                await self._watch(term, await self.catch_up(term))
            except Compacted:
                continue
            except StrongBoxError as error:
                _log.info("following revoked tokens waits", reason=error.reason)
            except EtcdError as error:
                _log.warning("following revoked tokens waits for etcd", why=str(error))
            await asyncio.sleep(PAUSE)

    async def catch_up(self, term: due.Fence) -> int:
        """Revoke for every marker newer than the cursor; returns the revision to watch from, less one."""
        seen = await self._submit(lambda view: due.followed(view, term))
        async for marker in self._pages(lambda view, after: due.read_markers(view, term, after)):
            if marker.mod_revision > seen.value:
                await self.revoke_all(term, marker.value.decode())
        # What was marked since the listing began is newer than `seen`: the watch finds it, if again.
        await self._submit(lambda view: due.follow_to(view, term, seen.revision))
        return seen.revision

    async def revoke_all(self, term: due.Fence, accessor: str) -> None:
        """Revoke every lease of a token."""
        async for row in self._pages(lambda view, after: due.read_held(view, term, accessor, after)):
            await self._revoke(term, row.key)

    async def _watch(self, term: due.Fence, revision: int) -> None:
        end = keyspace.prefix_end(keyspace.REVOKED)
        async with aclosing(watch(self._etcd, keyspace.REVOKED, end, revision + 1)) as batches:
            async for batch in batches:
                for event in batch.events:
                    if event.kind is Kind.PUT:
                        await self.revoke_all(term, event.value.decode())
                await self._follow_to(term, batch.revision)

    async def _follow_to(self, term: due.Fence, revision: int) -> None:
        await self._submit(lambda view: due.follow_to(view, term, revision))

    async def _revoke(self, term: due.Fence, key: bytes) -> None:
        await self._submit(lambda view: due.revoke_held(view, term, self._lookup.require_keys(), key))

    async def _pages(self, read: Callable[[View, bytes], None]) -> AsyncIterator[Row]:
        """All rows of a range, a slice at a time."""
        after = b""
        while True:
            rows = (await self._submit(_behind(read, after))).rows
            for row in rows:
                yield row
            if len(rows) < due.SLICE:
                return
            after = rows[-1].key


def _behind(read: Callable[[View, bytes], None], after: bytes) -> Callable[[View], None]:
    return lambda view: read(view, after)
