"""AuditService: reading the log, proving what it holds, and the keys that verify it.

* Listing, checkpoint and proof are audited themselves. The revision of that record is later than everything
  acknowledged before the call, so the answer waits until this replica's log has come that far. A replica that
  cannot trust its log answers nothing.
* A proof is verified, and so is the checkpoint it leads to, before it is given.
* Nothing is read, wrapped or opened for a caller before the guard has authorized it.
* A follower's token is checked again before entries are sent: a revoked token gets none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from services.audit.duties.retention import Retention, index_of
from services.audit.following.replica import Replica
from services.audit.keys import AuditKeys, OpenKeys
from services.audit.log import query
from services.audit.log.segments import Archived
from services.audit.proofs import prove
from services.audit.proofs.checkpoint_publisher import Forked, Publisher
from services.audit.proofs.prove import Unproved
from services.audit.serving.filter_checks import require_possible
from services.audit.serving.messages import to_entries, to_entry, to_proof
from strongbox.access.guard import Guard
from strongbox.audit.v1 import audit_service_pb2 as pb
from strongbox.audit.v1 import audit_service_pb2_grpc as pb_grpc
from strongbox.audit_log.archive_marker import Unproven
from strongbox.audit_log.chain import ROTATE
from strongbox.audit_log.checkpoint import Checkpoint, verifier_key
from strongbox.audit_log.key_file import format_keys
from strongbox.audit_outbox.outbox import draft_of
from strongbox.crypto.ed25519 import to_pem
from strongbox.errors import DependencyDown, InvalidInput, NoQuorum, Overloaded, VersionMismatch
from strongbox.rpc.request_context import Inbound, inbound_of
from strongbox.storage.v1.envelope_pb2 import Envelope
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Effect, Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd.errors import EtcdError

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[object, object]

P = ParamSpec("P")
T = TypeVar("T")
POLICY_PATH = "audit"
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_FOLLOWERS = 64
_UNPROVEN = "the marker of what is archived is lost on this replica: others can prove"
_MARGIN = 0.2  # seconds left for the answer itself
_AGAIN = 1.5  # seconds for one look at the log, and for checking a follower's token again
_QUIET = 5.0  # seconds after which a follower's token is checked even if nothing is sent
NewKey = Callable[[int], Awaitable[Envelope]]


class AuditServicer(pb_grpc.AuditServiceServicer):
    """The RPCs over one replica of the chain. `new_key(term)` makes an HMAC key, as it is stored."""

    def __init__(
        self,
        pipeline: Pipeline,
        guard: Guard,
        replica: Replica,
        keys: AuditKeys,
        publisher: Publisher,
        new_key: NewKey,
        retention: Retention | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._guard = guard
        self._replica = replica
        self._keys = keys
        self._publisher = publisher
        self._new_key = new_key
        self._retention = retention
        self._followers = 0

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Context) -> pb.ListEntriesResponse:
        """A page of entries; everything acknowledged before the call is in the log that is read."""
        require_possible(request)
        limit, wanted = limit_of(request), query.filter_of(request, request.since, request.until)
        inbound = inbound_of(context)
        await self._caught_up(inbound, "ListEntries")
        position, log, until = self._replica.position, self._replica.log, inbound.deadline - _MARGIN
        if request.newest_first:
            end = (
                min(request.before_index, position.size)
                if request.HasField("before_index")
                else position.size
            )
            page = await _read(query.descending, log, wanted, end, limit, until)
        else:
            start = request.from_index or log.first
            page = await _read(query.ascending, log, wanted, start, position.size, limit, until)
        return to_entries(page, position, log.first)

    async def FollowEntries(
        self, request: pb.FollowEntriesRequest, context: Context
    ) -> AsyncIterator[pb.FollowEntriesResponse]:
        """Entries as they come, until the client leaves or may no longer read."""
        require_possible(request)
        inbound, wanted = inbound_of(context), query.filter_of(request)
        if request.from_index < 0:
            raise InvalidInput("from_index is not negative")
        await self._caught_up(inbound, "FollowEntries")
        if self._followers >= MAX_FOLLOWERS:
            raise Overloaded("too many follow the audit log here")
        self._followers += 1
        try:
            index = request.from_index if request.HasField("from_index") else self._replica.position.size
            async for answer in self._follow(inbound, wanted, index):
                yield answer
        finally:
            self._followers -= 1

    async def _follow(
        self, inbound: Inbound, wanted: query.Filter, index: int
    ) -> AsyncIterator[pb.FollowEntriesResponse]:
        log, let_in = self._replica.log, time.monotonic()
        while True:
            size = self._replica.position.size
            until = time.monotonic() + _AGAIN
            page = await _read(query.ascending, log, wanted, index, size, MAX_LIMIT, until)
            index = max(index, size) if page.next_index is None else page.next_index
            if page.lines or time.monotonic() - let_in > _QUIET:
                await self._let_in_again(inbound)
                let_in = time.monotonic()
            for line in page.lines:
                yield pb.FollowEntriesResponse(entry=to_entry(line))
            if index >= self._replica.position.size:
                await self._replica.grown(index, _QUIET)

    async def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        """A signed statement of the log, which holds everything acknowledged before the call."""
        inbound = inbound_of(context)
        await self._caught_up(inbound, "GetCheckpoint")
        note, told = await self._signed(self._replica.position.size, inbound.deadline)
        return pb.GetCheckpointResponse(checkpoint=note, size=told.size, root_hash=told.root)

    async def GetProof(self, request: pb.GetProofRequest, context: Context) -> pb.GetProofResponse:
        """Proof that an entry is in the log, or that the log only grew, up to a signed checkpoint."""
        if not (request.HasField("index") or request.HasField("from_size")):
            raise InvalidInput("index names an entry, from_size an older log: one of them is needed")
        inbound = inbound_of(context)
        await self._caught_up(inbound, "GetProof")
        held = self._replica.position.size
        size = request.size if request.HasField("size") else held
        if not 0 < size <= held:
            raise InvalidInput("the log never had this size", size=str(held))
        if request.HasField("index") and not 0 <= request.index < size:
            raise InvalidInput("index is that of an entry below size")
        if request.HasField("from_size") and not 0 <= request.from_size <= size:
            raise InvalidInput("from_size is at most size")
        note, told = await self._signed(size, inbound.deadline)
        if told.size > self._replica.log.size:
            raise DependencyDown("this replica has not got as far as the newest checkpoint")
        try:
            return await _read(self._prove, request, size, note, told)
        except Unproved as fault:
            self._replica.doubt(f"the hashes do not prove the log: {fault}")
            raise DependencyDown("this replica's audit log is in trouble") from None

    async def GetPublicKey(
        self, request: pb.GetPublicKeyRequest, context: Context
    ) -> pb.GetPublicKeyResponse:
        """The public key with which checkpoints are verified."""
        await self._authorize(inbound_of(context), "GetPublicKey", "read")
        keys = self._keys.require()
        return pb.GetPublicKeyResponse(
            public_key=to_pem(keys.signing.public),
            verifier_key=verifier_key(keys.origin, keys.signing.public),
        )

    async def ExportKey(self, request: pb.ExportKeyRequest, context: Context) -> pb.ExportKeyResponse:
        """The chain's keys, for `strongbox-verify --key-file`; the audit record of it is committed first."""
        await self._authorize(inbound_of(context), "ExportKey", "sudo")
        return pb.ExportKeyResponse(key=format_keys((await self._fresh_keys()).chain))

    async def ArchiveEntries(
        self, request: pb.ArchiveEntriesRequest, context: Context
    ) -> pb.ArchiveEntriesResponse:
        """Record up to where every replica shall archive; answers how far each has come."""
        size, inbound = self._replica.position.size, inbound_of(context)
        asked = request.before_index if request.HasField("before_index") else size
        has_archive = self._retention is not None and self._retention.has_archive

        def decide(view: View) -> int:
            self._guard.require(view, inbound, "sudo", POLICY_PATH)
            if not has_archive:
                raise InvalidInput("this replica has no archive: set STRONGBOX_AUDIT_ARCHIVE")
            if not 0 <= asked <= size:
                raise InvalidInput("before_index is at most the log's size", size=str(size))
            known = view.get(keyspace.AUDIT_ARCHIVE).value
            below = max(asked, index_of(known))
            view.put(keyspace.AUDIT_ARCHIVE, b"%d" % below)
            if view.draft is not None:
                view.draft.version = below
            return below

        draft = draft_of(inbound, "ArchiveEntries", POLICY_PATH)
        below = (await self._pipeline.submit(Work(decide, draft, inbound.deadline))).value
        try:
            reports = await self._replica.reports(inbound.deadline)
        except EtcdError:
            reports = {}  # the request is recorded all the same
        return pb.ArchiveEntriesResponse(
            before_index=below,
            replicas=[
                pb.ArchivedReplica(node_id=node, first_index=reports[node]) for node in sorted(reports)
            ],
        )

    async def RotateAuditKey(
        self, request: pb.RotateAuditKeyRequest, context: Context
    ) -> pb.RotateAuditKeyResponse:
        """Put a new HMAC key in the transaction of the record that announces it."""
        inbound = inbound_of(context)
        await self._require_sudo(inbound, ROTATE)
        term = max((await self._fresh_keys()).chain) + 1
        made = await self._new_key(term)

        def decide(view: View) -> None:
            self._guard.require(view, inbound, "sudo", POLICY_PATH)
            key = keyspace.audit_key(term)
            if view.get(key).value is not None:
                raise VersionMismatch("another rotation came first")
            self._guard.lookup.require_current(made.term)
            view.put(key, made.SerializeToString())
            if view.draft is not None:
                view.draft.version = term

        draft = draft_of(inbound, ROTATE, POLICY_PATH)
        await self._pipeline.submit(Work(decide, draft, inbound.deadline, effect=Effect.SAFETY))
        return pb.RotateAuditKeyResponse(term=term)

    # letting in -----------------------------------------------------------------------------------

    async def _authorize(self, inbound: Inbound, op: str, capability: str) -> int:
        """Check and record the call; returns the revision of its record."""

        def decide(view: View) -> None:
            self._guard.require(view, inbound, capability, POLICY_PATH)

        work = Work(decide, draft_of(inbound, op, POLICY_PATH), inbound.deadline)
        return (await self._pipeline.submit(work)).revision

    async def _require_sudo(self, inbound: Inbound, op: str) -> None:
        """Check before work is done for a caller; records refusals only, as the work has its record."""

        def decide(view: View) -> None:
            self._guard.require(view, inbound, "sudo", POLICY_PATH)
            view.draft = None

        await self._pipeline.submit(Work(decide, draft_of(inbound, op, POLICY_PATH), inbound.deadline))

    async def _let_in_again(self, inbound: Inbound) -> None:
        """Check, without a record, that the token may still read."""
        now = replace(inbound, deadline=time.monotonic() + _AGAIN)

        def decide(view: View) -> None:
            self._guard.require(view, now, "read", POLICY_PATH)

        await self._pipeline.submit(Work(decide, None, now.deadline))

    async def _caught_up(self, inbound: Inbound, op: str) -> None:
        """Authorize and record the call, and wait until the log has that record. Raises DependencyDown."""
        revision = await self._authorize(inbound, op, "read")
        if not self._replica.healthy:
            raise DependencyDown("this replica's audit log is in trouble")
        try:
            await self._replica.reached(revision, inbound.deadline - _MARGIN)
        except TimeoutError:
            raise DependencyDown("the audit log has not caught up in time") from None

    async def _fresh_keys(self) -> OpenKeys:
        """All keys, read anew: a term that was announced a moment ago is among them."""
        try:
            return await self._keys.open()
        except EtcdError:
            raise NoQuorum from None

    # proving --------------------------------------------------------------------------------------

    async def _signed(self, size: int, deadline: float) -> tuple[str, Checkpoint]:
        try:
            return await self._publisher.publish(size, deadline - _MARGIN)
        except EtcdError:
            raise NoQuorum from None
        except Unproven:
            raise DependencyDown(_UNPROVEN) from None
        except Forked as fault:
            self._replica.doubt(str(fault))
            raise DependencyDown("this replica's audit log is in trouble") from None

    def _prove(
        self, request: pb.GetProofRequest, size: int, note: str, told: Checkpoint
    ) -> pb.GetProofResponse:
        """Blocking."""
        log = self._replica.log
        signed = prove.prove_signed(log, size, told)
        entry = prove.prove_entry(log, request.index, size) if request.HasField("index") else None
        older = prove.prove_growth(log, request.from_size, size) if request.HasField("from_size") else None
        return to_proof(note, signed, entry, older)


async def _read(read: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run it in a thread. Raises what it does, and InvalidInput where it asks for what is archived."""
    try:
        return await asyncio.to_thread(read, *arguments, **named)
    except Unproven:
        raise DependencyDown(_UNPROVEN) from None
    except Archived as fault:
        raise InvalidInput(
            f"entries below index {fault.first} are archived: their segments are in the audit archive",
            first_index=str(fault.first),
        ) from None


def limit_of(request: pb.ListEntriesRequest) -> int:
    """How many entries are asked for. Raises InvalidInput."""
    if request.from_index < 0 or request.before_index < 0:
        raise InvalidInput("an index is not negative")
    if not 0 <= request.limit <= MAX_LIMIT:
        raise InvalidInput(f"limit is 1 to {MAX_LIMIT}")
    return request.limit or DEFAULT_LIMIT
