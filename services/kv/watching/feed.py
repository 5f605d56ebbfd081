"""One watch of all heads for a process, however many streams: each change is looked at once and handed out.

Rules:
* The watch runs while somebody follows. It begins where the first one begins, and no later than now.
* Who begins at a revision that was handed out already catches up by a watch of his own. It ends at the last
  revision that had been handed out when he came: from there on all changes wait for him. While nothing was
  handed out yet it ends at the next change. A few get an answer at once: it may hold a thousand revisions.
* For each follower at most `MOST_WAITING` changes wait; who is further behind is `Behind`. So a client that
  does not read costs no memory. The changes themselves are shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from copy import copy

from services.kv.watching.changes import Change, changes_of
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.watch import Batch, watch

MOST_WAITING = 1024  # changes
MOST_CATCHING_UP = 4


class Behind(Exception):
    """More has happened than waits for a follower: he has to list again."""


class Follower:
    """The changes that wait for one who follows; those below `position` he has, or does not want."""

    def __init__(self, prefix: str, position: int) -> None:
        self.prefix, self.position = prefix, position
        self._waiting: list[Change] = []
        self._failure: Exception | None = None
        self._woken = asyncio.Event()

    def of(self, changes: Sequence[Change]) -> list[Change]:
        """Those of these that concern him."""
        return [one for one in changes if one.revision >= self.position and one.path.startswith(self.prefix)]

    def offer(self, changes: Sequence[Change]) -> None:
        """Have them wait for him; beyond what may wait he is behind."""
        mine = self.of(changes)
        if not mine or self._failure is not None:
            return
        if len(self._waiting) + len(mine) > MOST_WAITING:
            self.fail(Behind())
            return
        self._waiting += mine
        self._woken.set()

    def fail(self, failure: Exception) -> None:
        """He is told no more."""
        self._waiting, self._failure = [], failure
        self._woken.set()

    async def take(self) -> list[Change]:
        """What waits, as soon as something does; less what he has had. Raises what he failed by."""
        await self._woken.wait()
        if self._failure is not None:
            raise copy(self._failure)  # what is raised holds this frame, and so him who has the original
        self._woken.clear()
        taken, self._waiting = self._waiting, []
        return self.of(taken)


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
        """What he wants up to a revision that a change has, or the next one that one has."""
        # Nobody else is kept waiting by who waits for a change that is still to come.
        turn = self._catching_up if self._has_told else nullcontext()
        seen = 0
        async with aclosing(self._watch(follower.position)) as batches:
            while seen < until:
                async with turn:  # and not while he reads, who may be slow
                    batch = await anext(batches)
                    changes, seen = follower.of(_projected(batch)), batch.revision
                    del batch  # whole heads: who does not read what follows keeps none of them
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
        except Exception as failure:  # noqa: BLE001  each of them is told; the next one begins anew
            self._task = None
            for follower in self._followers:
                follower.fail(failure.with_traceback(None))

    def _watch(self, position: int) -> AsyncGenerator[Batch, None]:
        end = keyspace.prefix_end(keyspace.KV_HEADS)
        return watch(self._etcd, keyspace.KV_HEADS, end, position)


def _projected(batch: Batch) -> list[Change]:
    return [change for event in batch.events for change in changes_of(event)]
