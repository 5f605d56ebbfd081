"""Streams of what changes below a directory.

Rules:
* Opening needs `list` on the directory and is audited. Before events are sent, and every 10 s, a transaction
  proves that the token is still valid and still has `list`; each event also needs `read` on its path. So a
  revocation, a policy change or a sealing takes effect before the next event.
* Events come in etcd's order and none is left out; several can have one revision. `from_revision` is
  inclusive: a client that resumes gives the last revision it saw, and drops those of its events that it has.
* When the wanted revision is compacted, the client gets `RESYNC` and lists again; changes after the revision
  of `RESYNC` follow.
* No value is sent. Only operations are events: purging and rewrapping are not.
* The stream of a token with a limited number of uses ends once the last use is taken. Opening takes one:
  opened with the last use, the stream ends before it sends anything.
* How many there may be, and for whom, is in `open_streams`.
* They share one watch of etcd (`feed`), and the streams of a token share their proofs (`watcher_proofs`).
* A client that reads too slowly gets `RESYNC`, as if the revision were compacted: what waits for it is
  limited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from services.kv.watching.changes import RESYNC, Change
from services.kv.watching.feed import Feed
from services.kv.watching.follower_backlog import Behind
from services.kv.watching.open_streams import Bounds, Streams, bounds_of
from services.kv.watching.watcher_proofs import Proofs
from strongbox.access.guard import Guard
from strongbox.audit_outbox.outbox import draft_of
from strongbox.errors import Internal
from strongbox.paths import DirectoryPath
from strongbox.rpc.request_context import Inbound
from strongbox.store.decisions.pipeline import Outcome, Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import Compacted, PermissionDenied

PROVE_EVERY = 10.0  # seconds without an event
MOST_AT_ONCE = 128  # changes of one stream that one proof covers
OP = "WatchSecrets"
_log = structlog.get_logger(__name__)


class Watching:
    """All streams of one process."""

    def __init__(self, pipeline: Pipeline, guard: Guard, etcd: Etcd) -> None:
        self._pipeline, self._guard = pipeline, guard
        self._feed, self._proofs = Feed(etcd), Proofs(pipeline, guard)
        self._streams = Streams()

    async def changes(
        self, inbound: Inbound, directory: DirectoryPath, first: int
    ) -> AsyncGenerator[Change, None]:
        """Changes from revision `first` on (0: from now); ends only by raising what the guard raises."""
        opened = await self._opened(inbound, directory)
        now = opened.revision
        position = first or now + 1
        with self._streams.counted(opened.value):
            while True:
                try:
                    async with aclosing(self._follow(inbound, directory, position, now)) as told:
                        async for change in told:
                            yield change
                except (Compacted, Behind):
                    now = (await self._proofs.prove(inbound, directory.policy_path)).revision
                    yield Change("", 0, RESYNC, now)
                    position = now + 1
                except PermissionDenied:
                    _log.error("etcd's role forbids watching secrets")
                    raise Internal from None

    async def _follow(
        self, inbound: Inbound, directory: DirectoryPath, position: int, now: int
    ) -> AsyncGenerator[Change, None]:
        stream = self._feed.follow(directory.prefix, position, now)
        async with aclosing(stream), _Next(stream) as following:
            while True:
                changes = await following.within(_until_next_proof())
                for start in range(0, max(1, len(changes)), MOST_AT_ONCE):
                    some = changes[start : start + MOST_AT_ONCE]
                    for change in (await self._proofs.prove(inbound, directory.policy_path, some)).changes:
                        yield change

    async def _opened(self, inbound: Inbound, directory: DirectoryPath) -> Outcome[Bounds]:
        """Authorize and record the call; returns the limits that its stream is counted in."""

        def guarded(view: View) -> Bounds:
            return bounds_of(self._guard.require(view, inbound, "list", directory.policy_path))

        draft = draft_of(inbound, OP, directory.policy_path)
        return await self._pipeline.submit(Work(guarded, draft, inbound.deadline))


class _Next:
    """Waits for a feed's next changes with a time limit, without cancelling the wait."""

    def __init__(self, stream: AsyncGenerator[list[Change], None]) -> None:
        self._stream = stream
        self._task: asyncio.Task[list[Change]] | None = None

    async def __aenter__(self) -> _Next:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def within(self, seconds: float) -> list[Change]:
        """The next changes; an empty list when none came in time."""
        if self._task is None:
            self._task = asyncio.ensure_future(anext(self._stream))
        done, _ = await asyncio.wait({self._task}, timeout=seconds)
        if not done:
            return []
        self._task = None
        return done.pop().result()  # in no name of ours: what it raises holds this frame


def _until_next_proof() -> float:
    """Seconds; all idle streams of a token prove at the same moments, so together."""
    return PROVE_EVERY - time.monotonic() % PROVE_EVERY
