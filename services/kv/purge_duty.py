"""The purge duty: what was destroyed leaves etcd's history within a minute, and old history goes as well.

    destroy   kv removes the envelope and leaves a request to purge (repository)
    +10 s     ripe by cluster/time: no pipeline still looks up an outcome at a revision that old
    compact   past the request's revision: no readable revision holds the envelope any more
    defragment  each member in turn: removes it from the member's file; one that is down does it when back
    purged    `purged_at` in the head, and the request deleted, under the term's fence

Besides, every 30 s etcd is compacted to a revision seen at least a minute ago. A pipeline that lost etcd's
answer and looks for the outcome at a compacted revision would answer `UNKNOWN_OUTCOME`: hence the 10 s.
Watchers and audit replicas that are behind list again. Compacting twice, or late, does no harm, so it needs
no fence.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import structlog
from google.protobuf.message import DecodeError

from services.kv import repository, versions
from services.kv.repository import Repository
from strongbox.clock import Clock
from strongbox.errors import StrongBoxError
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Effect, Outcome, Pipeline, Work
from strongbox.store.decisions.view import Row, View
from strongbox.store.etcd.errors import EtcdError
from strongbox.store.space.defragment import Busy

T = TypeVar("T")
_log = structlog.get_logger(__name__)
PAUSE = 2.0  # seconds between passes
RIPE_MS = 10_000
SPACING = 15.0  # seconds between purges: compaction and defragmentation are work for every member
COMPACT_EVERY = 30.0  # seconds
KEEP_HISTORY = 60.0  # seconds
SLICE = 64  # requests to purge that are read, or settled, at a time
DEADLINE = 5.0  # seconds for one transaction


class Fence(Protocol):
    """What a decision of the duty compares (strongbox.store.duties.election.Term)."""

    def require(self, view: View, /) -> None:
        """Make the decision depend on the term; raises when it is over."""

    def progress(self) -> None:
        """A pass was done, or a part of a long one."""


class Upkeep(Protocol):
    """What the duty asks of etcd (strongbox.store.etcd.client.Etcd)."""

    async def compact(self, revision: int, *, physical: bool = True) -> None:
        """Forget history before `revision`."""


def read_requests(view: View, fence: Fence, after: bytes = b"") -> None:
    """Fetch the cluster's time and a slice of what is to be purged, behind the key `after`."""
    fence.require(view)
    view.fetch(keyspace.CLUSTER_TIME, keyspace.CLUSTER_TIME + b"\0")
    start = after + b"\0" if after else keyspace.KV_PURGES
    view.fetch(start, keyspace.prefix_end(keyspace.KV_PURGES), limit=SLICE)


def split(rows: Sequence[Row]) -> tuple[int, list[Row]]:
    """The cluster's time (0: it has none yet), and the requests of what `read_requests` fetched."""
    times = [int(row.value) for row in rows if row.key == keyspace.CLUSTER_TIME]
    return max(times, default=0), [row for row in rows if row.key != keyspace.CLUSTER_TIME]


def ripe(rows: Sequence[Row], now_ms: int) -> list[Row]:
    """The requests that are old enough; one that cannot be read is left out and delays no other."""
    return [row for row in rows if (at_ms := _asked_at(row)) is not None and at_ms + RIPE_MS <= now_ms]


def _asked_at(row: Row) -> int | None:
    try:
        return int(storage.PurgeRecord.FromString(row.value).at_ms)
    except DecodeError:
        _log.error(
            "a purge record cannot be read, and stays", key=row.key.decode("ascii", "backslashreplace")
        )
        return None


def settle(view: View, fence: Fence, secrets: Repository, key: bytes, revision: int) -> None:
    """Record that the request put at `revision` is purged; a newer one at the same key waits.

    A head that is junk or forged is left as it is, and delays nothing.
    """
    fence.require(view)
    if view.get(key).mod_revision != revision:
        return
    request = repository.purge_of(view, key)
    view.delete(key)
    head = secrets.head_or_junk(view, request.path) if request is not None else None
    if request is None or not isinstance(head, storage.SecretHead):
        return
    change = versions.purged(head, request.versions, request.at_ms, view.now_ms)
    if change.head != head:
        secrets.put_change(view, request.path, change)


class History:
    """Which revision was the newest at which moment (monotonic seconds)."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._compacted_at = float("-inf")

    def note(self, now: float, revision: int) -> None:
        """Remember the revision, at most once a second."""
        if not self._seen or now - self._seen[-1][0] >= 1.0:
            self._seen.append((now, revision))

    def due(self, now: float) -> int | None:
        """The newest revision that was seen a minute ago, when it is time to compact."""
        if now - self._compacted_at < COMPACT_EVERY:
            return None
        target = None
        while self._seen and now - self._seen[0][0] >= KEEP_HISTORY:
            target = self._seen.popleft()[1]
        if target is not None:
            self._compacted_at = now
        return target


class Purge:
    """The duty, over the pipeline and etcd's upkeep calls."""

    def __init__(
        self,
        pipeline: Pipeline,
        secrets: Repository,
        etcd: Upkeep,
        defragment: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._pipeline, self._secrets, self._etcd, self._clock = pipeline, secrets, etcd, clock
        self._defragment = defragment
        self._history = History()
        self._purged_at = float("-inf")

    async def work(self, term: Fence) -> None:
        """Purge until cancelled at the end of the term; the fence stops work that is late."""
        while True:
            try:
                await self.one_pass(term)
                term.progress()
            except StrongBoxError as error:  # sealed, or no quorum: the requests stay in etcd
                _log.info("purging waits", reason=error.reason)
            except (EtcdError, Busy) as error:
                _log.warning("purging waits for etcd", why=str(error))
            await asyncio.sleep(PAUSE)

    async def one_pass(self, term: Fence) -> int:
        """Purge what is ripe, compact what is old; returns how many requests were settled."""
        told = await self._submit(lambda view: read_requests(view, term))
        now = self._clock.monotonic()
        self._history.note(now, told.revision)
        old = self._history.due(now)
        if old is not None:
            await self._etcd.compact(old, physical=False)
        time_ms, first = split(told.rows)
        if not first or now - self._purged_at < SPACING:
            return 0
        rows = ripe(await self._all(term, first), time_ms)
        if rows:
            self._purged_at = now
            await self._purge(term, rows)
        return len(rows)

    async def _all(self, term: Fence, first: Sequence[Row]) -> list[Row]:
        """Every request there is: one compaction serves them all."""
        rows, page = list(first), first
        while len(page) == SLICE:
            last = rows[-1].key
            page = split((await self._submit(_reading(term, last))).rows)[1]
            rows += page
        return rows

    async def _purge(self, term: Fence, rows: Sequence[Row]) -> None:
        await self._etcd.compact(max(row.mod_revision for row in rows))
        await self._defragment()
        for start in range(0, len(rows), SLICE):
            await asyncio.gather(*(self._settle(term, row) for row in rows[start : start + SLICE]))
            term.progress()

    async def _settle(self, term: Fence, row: Row) -> None:
        await self._submit(lambda view: settle(view, term, self._secrets, row.key, row.mod_revision))

    async def _submit(self, decide: Callable[[View], T]) -> Outcome[T]:
        return await self._pipeline.submit(
            Work(decide, None, time.monotonic() + DEADLINE, effect=Effect.FREES)
        )


def _reading(term: Fence, after: bytes) -> Callable[[View], None]:
    return lambda view: read_requests(view, term, after)
