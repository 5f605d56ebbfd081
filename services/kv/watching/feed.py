"""One watch of all heads for a process, however many streams: each change is looked at once and handed out.

Rules:
* The watch runs while there are followers. It begins where the first follower begins, but no later than now.
* A follower that begins at a revision handed out already catches up with a watch of its own. That ends at the
  last revision that had been handed out when it came, since later changes wait for it. If nothing has been
  handed out yet, it ends at the next change. Only `MOST_CATCHING_UP` read an answer at once, since one may
  hold a thousand revisions.
* How many changes may wait for a follower is in `follower_backlog`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, nullcontext

from services.kv.watching.changes import Change, changes_of
from services.kv.watching.follower_backlog import Follower
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.watch import Batch, watch

MOST_CATCHING_UP = 4


class Feed:
    """The changes of all secrets; one per process."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._followers: set[Follower] = set()
        self._task: asyncio.Task[None] | None = None
        self._seen = 0  # all changes up to this revision were handed out
        self._has_told = False
        self._catching_up = asyncio.Semaphore(MOST_CATCHING_UP)

    async def follow(self, prefix: str, position: int, now: int) -> AsyncGenerator[list[Change], None]:
        """Changes of the paths that begin with `prefix`, from revision `position` on, for ever.

        `now`: a revision of etcd's that was seen; `position` may be one that is still to come.

        Raises `Behind`, `Compacted`, `PermissionDenied` (etcd's role forbids it), `Unavailable` (closed).
        """
        with self._following(prefix, position, now) as follower:
            if position <= self._seen:
                async with aclosing(self._history(follower, self._seen)) as history:
                    async for changes in history:
                        yield changes
            while True:
                yield await follower.take()

    @contextmanager
    def _following(self, prefix: str, position: int, now: int) -> Iterator[Follower]:
        follower = Follower(prefix, position)
        if self._task is None:
            start = min(position, now + 1)
            self._seen, self._has_told = start - 1, False
            self._task = asyncio.create_task(self._run(start), name="feed of changes")
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _history(self, follower: Follower, until: int) -> AsyncGenerator[list[Change], None]:
        """The follower's changes up to revision `until`, or to the next change if that has none."""
        # Without a turn when it may wait for a change still to come: that would keep others waiting.
        turn = self._catching_up if self._has_told else nullcontext()
        seen = 0
        async with aclosing(self._watch(follower.position)) as batches:
            while seen < until:
                async with turn:  # given back before the yield: the client may be slow
                    batch = await anext(batches)
                    changes, seen = follower.of(_projected(batch)), batch.revision
                    del batch  # whole heads: not to be kept while the client reads
                follower.position = seen + 1
                if changes:
                    yield changes

    async def _run(self, position: int) -> None:
        try:
            async with aclosing(self._watch(position)) as batches:
                async for batch in batches:
                    self._seen, self._has_told = batch.revision, True
                    changes = _projected(batch)
                    del batch  # as above, while nothing happens
                    for follower in self._followers:
                        follower.offer(changes)
        except Exception as failure:  # noqa: BLE001  each follower gets it; the next one starts a new watch
            self._task = None
            for follower in self._followers:
                follower.fail(failure.with_traceback(None))

    def _watch(self, position: int) -> AsyncGenerator[Batch, None]:
        end = keyspace.prefix_end(keyspace.KV_HEADS)
        return watch(self._etcd, keyspace.KV_HEADS, end, position)


def _projected(batch: Batch) -> list[Change]:
    return [change for event in batch.events for change in changes_of(event)]
