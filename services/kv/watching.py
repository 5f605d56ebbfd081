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
* A process serves at most 256 streams, 16 of them for a token and all that descend from it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import NamedTuple, TypeVar

import structlog
from google.protobuf.message import DecodeError

from strongbox.access.guard import Caller, Guard, is_spent
from strongbox.errors import Internal, InvalidInput, Overloaded, RateLimited, Unauthenticated
from strongbox.paths import DirectoryPath
from strongbox.rpc.inbound import Inbound
from strongbox.storage.v1 import auth_records_pb2
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.client import Etcd
from strongbox.store.errors import Compacted, PermissionDenied
from strongbox.store.journal import Draft
from strongbox.store.pipeline import Outcome, Pipeline, Work
from strongbox.store.view import View
from strongbox.store.watch import Batch, Event, Kind, watch
from strongbox.trail.outbox import draft_of

T = TypeVar("T")
MOST_STREAMS, MOST_OF_A_TOKEN = 256, 16
PROVE_EVERY = 10.0  # seconds without an event
PROVE_WITHIN = 2.0  # seconds for one proof
OP, RESYNC, REMOVED = "WatchSecrets", "RESYNC", "REMOVED"
KINDS = {
    "WriteSecret": "WRITTEN",
    "DeleteSecretVersions": "DELETED",
    "UndeleteSecretVersions": "UNDELETED",
    "DestroySecretVersions": "DESTROYED",
    "UpdateSecretMetadata": "METADATA",
}
_log = structlog.get_logger(__name__)


class Change(NamedTuple):
    """One event; `version` 0: the secret as a whole; `revision` is etcd's."""

    path: str
    version: int
    kind: str
    revision: int


class Watching:
    """All streams of one process."""

    def __init__(self, pipeline: Pipeline, guard: Guard, etcd: Etcd) -> None:
        self._pipeline, self._guard, self._etcd = pipeline, guard, etcd
        self._open: Counter[str] = Counter()

    async def changes(
        self, inbound: Inbound, directory: DirectoryPath, first: int
    ) -> AsyncGenerator[Change, None]:
        """Changes from revision `first` on (0: from now); ends only by raising what the guard raises."""
        draft = draft_of(inbound, OP, directory.policy_path)
        opened = await self._prove(inbound, directory, _root_of, draft, inbound.deadline)
        position = first or opened.revision + 1
        with self._counted(opened.value):
            while True:
                try:
                    async with aclosing(self._follow(inbound, directory, position)) as told:
                        async for change in told:
                            yield change
                except Compacted:
                    now = await self._prove(inbound, directory, _living(_root_of))
                    yield Change("", 0, RESYNC, now.revision)
                    position = now.revision + 1
                except PermissionDenied:
                    _log.error("etcd's role forbids watching secrets")
                    raise Internal from None

    async def _follow(
        self, inbound: Inbound, directory: DirectoryPath, position: int
    ) -> AsyncGenerator[Change, None]:
        prefix = keyspace.head(directory.prefix)
        stream = watch(self._etcd, prefix, keyspace.prefix_end(prefix), position)
        async with aclosing(stream), _Next(stream) as following:
            while True:
                batch = await following.within(PROVE_EVERY)
                events = batch.events if batch is not None else ()
                changes = [change for event in events for change in changes_of(event)]
                for change in (await self._prove(inbound, directory, _living(_readable(changes)))).value:
                    yield change

    async def _prove(
        self,
        inbound: Inbound,
        directory: DirectoryPath,
        decide: Callable[[Caller], T],
        draft: Draft | None = None,
        deadline: float = 0.0,
    ) -> Outcome[T]:
        """What `decide` says of who watches, while he may."""
        now = replace(inbound, deadline=deadline or time.monotonic() + PROVE_WITHIN)

        def guarded(view: View) -> T:
            return decide(self._guard.require(view, now, "list", directory.policy_path))

        return await self._pipeline.submit(Work(guarded, draft, now.deadline))

    @contextmanager
    def _counted(self, root: str) -> Iterator[None]:
        """Raises `Overloaded` and `RateLimited` when there are too many streams."""
        if self._open.total() >= MOST_STREAMS:
            raise Overloaded("this replica serves as many watches as it may")
        if self._open[root] >= MOST_OF_A_TOKEN:
            raise RateLimited(
                f"a token and its descendants hold at most {MOST_OF_A_TOKEN} watches of one replica"
            )
        self._open[root] += 1
        try:
            yield
        finally:
            self._open[root] -= 1
            self._open += Counter()  # forgets those at zero


class _Next:
    """The next batch of a watch, waited for in slices without breaking the watch off."""

    def __init__(self, stream: AsyncGenerator[Batch, None]) -> None:
        self._stream = stream
        self._task: asyncio.Task[Batch] | None = None

    async def __aenter__(self) -> _Next:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def within(self, seconds: float) -> Batch | None:
        """The next batch; `None` when none came in time."""
        if self._task is None:
            self._task = asyncio.ensure_future(anext(self._stream))
        done, _ = await asyncio.wait({self._task}, timeout=seconds)
        if not done:
            return None
        task, self._task = self._task, None
        return task.result()


def _root_of(caller: Caller) -> str:
    """The digest of the first token of the caller's tree: children have no watches of their own."""
    return caller.record.ancestors[-1] if caller.record.ancestors else caller.digest


def _living(decide: Callable[[Caller], T]) -> Callable[[Caller], T]:
    """`decide`, of a stream that is open already: it ends with the last use of its token."""

    def decided(caller: Caller) -> T:
        if is_spent(caller.record):
            raise Unauthenticated
        return decide(caller)

    return decided


def _readable(changes: Sequence[Change]) -> Callable[[Caller], list[Change]]:
    """Of these, the changes that the caller may read of."""
    return lambda caller: [change for change in changes if caller.allows("read", f"secret/{change.path}")]


def changes_of(event: Event) -> list[Change]:
    """What an event of a secret's head tells: one change for each version; none when it is no operation."""
    if event.kind is Kind.DELETE:
        path = event.key.removeprefix(keyspace.KV_HEADS).decode("utf-8", "replace")
        return [Change(path, 0, REMOVED, event.mod_revision)]
    try:
        # Its MAC is not looked at: an event tells that something has happened, which a deletion tells without
        # one, and whoever reads then is told no forged head.
        record = auth_records_pb2.AuthenticatedRecord.FromString(event.value)
        head = storage.SecretHead.FromString(record.body)
        path = event.key.removeprefix(keyspace.KV_HEADS).decode()
    except (DecodeError, UnicodeDecodeError):
        return []  # junk ends nobody's stream
    # The newest operation has no revision of its own yet just when this very revision is its.
    if not head.operations or head.operations[-1].revision:
        return []
    newest = head.operations[-1]
    kind = KINDS.get(newest.op, newest.op.upper())
    numbers = newest.versions or [head.current_version]
    return [Change(path, number, kind, event.mod_revision) for number in numbers]


def revision_of(text: str) -> int:
    """The revision to begin at; 0 when none is given. Raises `InvalidInput`."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:20]) < 1 << 63:
        raise InvalidInput("from_revision is a revision as an answer told it")
    return int(text)
