"""The duties of the lease service: reap what is due, and end what revoked tokens held.

Little depends on them being prompt: an expired lease is shown as expired, a revoked token reads nothing, and
PostgreSQL itself refuses new logins after the expiry. What each step decides is in `reaper_decisions` and
`revoke`. The fence stops work that is late; a role that is dropped late had to be dropped anyhow.

What is due is decided by the cluster's time alone. Requests go by their replica's clock too, if that is
later: a fast clock refuses them too early, but only until it is right again. A role that was dropped too
early would stay dropped.

A pass reads all that is due, a slice at a time, and costs no more than that; the groups of a slice are worked
on in parallel. Leases whose server does not answer are due again later; a lease that cannot be settled for a
reason of its own delays neither its group nor the slices after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import structlog

from services.lease.duties import reaper_decisions
from services.lease.leases.revoke import Fence, Revoker
from services.lease.metrics import Measures
from strongbox.access.record_reader import Lookup
from strongbox.errors import NoQuorum, Overloaded, Sealed, StrongBoxError, UnknownOutcome
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Effect, Outcome, Pipeline, Work
from strongbox.store.decisions.view import Row, View
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import Compacted, EtcdError
from strongbox.store.etcd.watch import Kind, watch

T = TypeVar("T")
_log = structlog.get_logger(__name__)
PAUSE = 0.5  # seconds between passes, and after a failure
DEADLINE = 5.0  # seconds for one transaction
BEAT = 5.0  # seconds between an idle follower's proofs that it still holds the duty
REMIND = 600.0  # seconds between two lines in the log about one entry
_OF_THE_CLUSTER = (Sealed, NoQuorum, UnknownOutcome, Overloaded)  # not one entry's fault


class _Duty:
    """What both duties share."""

    def __init__(self, pipeline: Pipeline, lookup: Lookup) -> None:
        self._pipeline, self._lookup = pipeline, lookup
        self._told: dict[bytes, float] = {}  # entries that could not be settled, and when that was logged

    async def _submit(self, decide: Callable[[View], T]) -> Outcome[T]:
        return await self._pipeline.submit(
            Work(decide, None, time.monotonic() + DEADLINE, effect=Effect.FREES)
        )

    async def _each(self, settle: Callable[[list[bytes]], Awaitable[None]], entries: list[bytes]) -> bool:
        """Settle entries together; if one of them makes that fail, each by itself.

        Returns False if one cannot be settled: it is logged, once in `REMIND`, and left for the next pass.
        Raises what is not one entry's fault.
        """
        try:
            await settle(entries)
        except _OF_THE_CLUSTER:
            raise
        except StrongBoxError as error:
            if len(entries) == 1:
                self._tell(entries[0], error.reason)
                return False
            return all([await self._each(settle, [entry]) for entry in entries])
        return True

    def _tell(self, entry: bytes, why: str) -> None:
        now = time.monotonic()
        while self._told and now - next(iter(self._told.values())) >= REMIND:  # in order of time
            del self._told[next(iter(self._told))]
        if entry not in self._told:
            self._told[entry] = now
            _log.error("a lease cannot be settled", key=entry.decode("ascii", "replace"), why=why)


class Reaper(_Duty):
    """Reaps what is due, a slice at a time."""

    def __init__(self, pipeline: Pipeline, lookup: Lookup, revoker: Revoker, measures: Measures) -> None:
        super().__init__(pipeline, lookup)
        self._revoker, self._measures = revoker, measures

    async def work(self, term: Fence) -> None:
        """Reap until cancelled at the end of the term."""
        try:
            while True:
                try:
                    await self.one_pass(term)
                    term.progress()
                except StrongBoxError as error:  # sealed, or no quorum: what is due stays due
                    _log.info("reaping waits", reason=error.reason)
                await asyncio.sleep(PAUSE)
        finally:
            self._measures.forget_waiting()

    async def one_pass(self, term: Fence) -> int:
        """Settle all that is due now; returns how many entries there were."""
        now_ms, after, done = await self.now_ms(term), b"", 0
        while True:
            entries = [row.key for row in (await self._submit(_reading_due(term, now_ms, after))).rows]
            if not entries:
                return done
            groups = [
                entries[at : at + reaper_decisions.GROUP]
                for at in range(0, len(entries), reaper_decisions.GROUP)
            ]
            results = await asyncio.gather(
                *(self._settle(term, group) for group in groups), return_exceptions=True
            )
            for group, result in zip(groups, results, strict=True):
                if result is None:
                    self._measures.reaped.inc(len(group))
            for result in results:
                if result is not None:
                    raise result
            term.progress()
            after, done = entries[-1], done + len(entries)

    async def now_ms(self, term: Fence) -> int:
        """The cluster's time, which no single clock moves (services.audit.duties.cluster_time)."""
        return (await self._submit(lambda view: reaper_decisions.cluster_ms(view, term))).value

    async def _settle(self, term: Fence, entries: list[bytes]) -> None:
        await self._each(lambda some: self._settle_together(term, some), entries)  # failures come again

    async def _settle_together(self, term: Fence, entries: list[bytes]) -> None:
        decide = _settling(term, self._lookup, entries)
        credentials = (await self._submit(decide)).value
        if credentials:
            await self._revoker.end(credentials, fence=term)


class Follower(_Duty):
    """Follows the markers of revoked tokens with a cursor of its own: lists what is new, then watches.

    The cursor passes a marker only when every lease of its token has been marked to end. Tokens with a lease
    for which that failed (its record's key has not arrived yet, say) are tried again in each pass, after the
    new ones, and delay no other; if this process dies, the next one finds them, since the cursor has not
    passed them. They are logged: a full pass is progress, even if single entries failed.
    """

    def __init__(self, pipeline: Pipeline, lookup: Lookup, etcd: Etcd) -> None:
        super().__init__(pipeline, lookup)
        self._etcd = etcd
        self._unsettled: set[str] = set()
        self._busy = False

    async def work(self, term: Fence) -> None:
        """Follow until cancelled at the end of the term."""
        while True:
            try:
                revision = await self.catch_up(term)
                while self._unsettled:
                    # New markers are looked for as well, while these are tried again.
                    await asyncio.sleep(PAUSE)
                    revision = await self.catch_up(term, beyond=revision)
                await self._watch(term, revision)
            except Compacted:
                continue
            except StrongBoxError as error:
                _log.info("following revoked tokens waits", reason=error.reason)
            except EtcdError as error:
                _log.warning("following revoked tokens waits for etcd", why=str(error))
            await asyncio.sleep(PAUSE)

    async def catch_up(self, term: Fence, beyond: int = 0) -> int:
        """Revoke for every marker newer than the cursor; returns the revision to watch from, less one.

        `beyond`: markers up to this revision were seen; of them only the unsettled are tried again.
        """
        seen = await self._submit(lambda view: reaper_decisions.followed(view, term))
        again = sorted(self._unsettled)
        async for marker in self._pages(
            term, lambda view, after: reaper_decisions.read_markers(view, term, after)
        ):
            if marker.mod_revision > max(seen.value, beyond):
                await self.revoke_all(term, _accessor_in(marker.value))
        for accessor in again:
            await self.revoke_all(term, accessor)
        # Markers put since the listing began are newer than `seen`: the watch finds them, perhaps again.
        await self._follow_to(term, seen.revision)
        return seen.revision

    async def revoke_all(self, term: Fence, accessor: str) -> None:
        """End every lease of a token; its credentials are due at once, and the reaper takes them up."""
        self._unsettled.add(accessor)  # tried again if this is interrupted
        entries: list[bytes] = []
        settled = True
        async for row in self._pages(
            term, lambda view, after: reaper_decisions.read_held(view, term, accessor, after)
        ):
            entries.append(row.key)
            if len(entries) == reaper_decisions.GROUP:
                settled &= await self._end(term, entries)
                entries = []
        if entries:
            settled &= await self._end(term, entries)
        if settled:
            self._unsettled.discard(accessor)

    async def _watch(self, term: Fence, revision: int) -> None:
        """Follow new markers until one cannot be settled."""
        end = keyspace.prefix_end(keyspace.REVOKED)
        beat = asyncio.create_task(self._beat(term), name="beat of the follower")
        try:
            async with aclosing(watch(self._etcd, keyspace.REVOKED, end, revision + 1)) as batches:
                async for batch in batches:
                    self._busy = True
                    for event in batch.events:
                        if event.kind is Kind.PUT:
                            await self.revoke_all(term, _accessor_in(event.value))
                    await self._follow_to(term, batch.revision)
                    self._busy = False
                    if self._unsettled:
                        return
        finally:
            self._busy = False
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    async def _beat(self, term: Fence) -> None:
        """Report progress while there is nothing to follow; following reports its own."""
        while True:
            await asyncio.sleep(BEAT)
            with contextlib.suppress(StrongBoxError):
                await self._submit(term.require)
                if not self._busy:
                    term.progress()

    async def _follow_to(self, term: Fence, revision: int) -> None:
        """A pass is done: move the cursor on, unless a token has to be tried again."""
        if self._unsettled:
            await self._submit(term.require)
        else:
            await self._submit(lambda view: reaper_decisions.follow_to(view, term, revision))
        term.progress()

    async def _end(self, term: Fence, entries: list[bytes]) -> bool:
        settled = await self._each(lambda some: self._end_together(term, some), entries)
        term.progress()
        return settled

    async def _end_together(self, term: Fence, entries: list[bytes]) -> None:
        await self._submit(
            lambda view: reaper_decisions.end_held(view, term, self._lookup.require_keys(), entries)
        )

    async def _pages(self, term: Fence, read: Callable[[View, bytes], None]) -> AsyncIterator[Row]:
        """All rows of a range, a slice at a time; each is read under the fence, so it is progress."""
        after = b""
        while True:
            rows = (await self._submit(_behind(read, after))).rows
            term.progress()
            for row in rows:
                yield row
            if len(rows) < reaper_decisions.SLICE:
                return
            after = rows[-1].key


def _accessor_in(marker: bytes) -> str:
    # A marker is not authenticated: one that is junk names nobody, and must not stop all others.
    return marker.decode("ascii", "replace")


def _behind(read: Callable[[View, bytes], None], after: bytes) -> Callable[[View], None]:
    return lambda view: read(view, after)


def _reading_due(term: Fence, now_ms: int, after: bytes) -> Callable[[View], None]:
    return lambda view: reaper_decisions.read_due(view, term, now_ms, after)


def _settling(term: Fence, lookup: Lookup, entries: list[bytes]) -> Callable[[View], list[str]]:
    return lambda view: reaper_decisions.settle(view, term, lookup.require_keys(), entries)
