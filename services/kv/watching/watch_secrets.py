"""What changes below a directory, as it happens.

Rules:
* Opening needs `list` on the directory and is audited. Before events are told, and every 10 s, a transaction
  proves that the token still lives and still may; each event needs `read` on its path besides. So a
  revocation, a policy change or a seal ends what is told from the very next event on.
* Events come in etcd's order and none is left out; several can bear one revision. `from_revision` is
  inclusive: who resumes gives the last revision he saw, and drops what he had of it already.
* When the wanted revision is compacted, `RESYNC` says so: whoever gets it lists again; changes after its
  revision follow.
* No value is told, and nothing that is not an operation: purging and rewrapping leave no event.
* A stream ends with the last use of a token that has so many: opening it takes one, and no other way in is
  left open by it. Opened with the last one it ends before it tells anything.
* How many there may be, and for whom, is in `open_streams`.
* They share one watch of etcd (`feed`), and the streams of a token share their proofs (`watcher_proofs`).
* Who reads more slowly than changes happen loses the overview, not our memory: `RESYNC`, as if compacted.
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
MOST_AT_ONCE = 128  # changes that one proof is for, of one stream
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
        """Let him in, and record it; what he is counted in."""

        def guarded(view: View) -> Bounds:
            return bounds_of(self._guard.require(view, inbound, "list", directory.policy_path))

        draft = draft_of(inbound, OP, directory.policy_path)
        return await self._pipeline.submit(Work(guarded, draft, inbound.deadline))


class _Next:
    """The next changes of a feed, waited for in slices without breaking it off."""

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
        """The next changes; none when none came in time."""
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
