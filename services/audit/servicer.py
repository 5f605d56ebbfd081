"""AuditService: reading the log, and exporting the key that verifies it.

A listing is itself an audited operation. Its transaction's revision is a point in etcd's order after
everything acknowledged before the call, so the answer waits until this replica's log has come that far; then
it holds all of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from services.audit.chain import Entry, parse_line
from services.audit.keys import ChainKey
from services.audit.replica import Replica
from services.audit.verify import format_key
from strongbox.access.guard import Guard
from strongbox.audit.v1 import audit_service_pb2 as pb
from strongbox.audit.v1 import audit_service_pb2_grpc as pb_grpc
from strongbox.errors import DependencyDown, InvalidInput
from strongbox.rpc.inbound import Inbound, inbound_of
from strongbox.store.pipeline import Pipeline, Work
from strongbox.store.view import View
from strongbox.trail.outbox import draft_of

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[object, object]

POLICY_PATH = "audit"
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
_MARGIN = 0.2  # seconds left for the answer itself


class AuditServicer(pb_grpc.AuditServiceServicer):
    """The two RPCs over one replica of the chain."""

    def __init__(self, pipeline: Pipeline, guard: Guard, replica: Replica, key: ChainKey) -> None:
        self._pipeline = pipeline
        self._guard = guard
        self._replica = replica
        self._key = key

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Context) -> pb.ListEntriesResponse:
        """Entries in ascending order; everything acknowledged before the call is in the log that is read."""
        limit = limit_of(request)
        inbound = inbound_of(context)
        revision = await self._authorize(inbound, "ListEntries", "read")
        await self._caught_up(revision, inbound.deadline)
        return await asyncio.to_thread(self._list, request, limit)

    async def ExportKey(self, request: pb.ExportKeyRequest, context: Context) -> pb.ExportKeyResponse:
        """The chain's keys, for `strongbox-verify --key-file`; the audit record of it is committed first."""
        await self._authorize(inbound_of(context), "ExportKey", "sudo")
        return pb.ExportKeyResponse(key=format_key(self._key.require()))

    async def _authorize(self, inbound: Inbound, op: str, capability: str) -> int:
        """Check and record the call; returns the revision of its record."""

        def decide(view: View) -> None:
            self._guard.require(view, inbound, capability, POLICY_PATH)

        work = Work(decide, draft_of(inbound, op, POLICY_PATH), inbound.deadline)
        return (await self._pipeline.submit(work)).revision

    async def _caught_up(self, revision: int, deadline: float) -> None:
        try:
            await self._replica.reached(revision, deadline - _MARGIN)
        except TimeoutError:
            raise DependencyDown("the audit log has not caught up in time") from None

    def _list(self, request: pb.ListEntriesRequest, limit: int) -> pb.ListEntriesResponse:
        """Read the log (blocking)."""
        position = self._replica.position
        answer = pb.ListEntriesResponse(head=pb.Head(index=position.size - 1, hmac=position.hmac))
        for line in self._replica.log.read(request.from_index):
            entry = parse_line(line)
            if entry.index >= position.size:  # on disk, but not yet computed again after a restart
                break
            if is_wanted(entry, request):
                answer.entries.append(to_proto(entry))
            if len(answer.entries) == limit:
                break
        return answer


def limit_of(request: pb.ListEntriesRequest) -> int:
    """How many entries are asked for. Raises InvalidInput."""
    if request.from_index < 0:
        raise InvalidInput("from_index is not negative")
    if not 0 <= request.limit <= MAX_LIMIT:
        raise InvalidInput(f"limit is 1 to {MAX_LIMIT}")
    return request.limit or DEFAULT_LIMIT


def is_wanted(entry: Entry, request: pb.ListEntriesRequest) -> bool:
    """Whether the filters that are given all match."""
    wanted = ((request.path, entry.path), (request.accessor, entry.accessor), (request.op, entry.op))
    return all(not asked or asked == stands for asked, stands in wanted)


def to_proto(entry: Entry) -> pb.Entry:
    """The entry on the wire."""
    stamp = Timestamp()
    stamp.FromJsonString(entry.ts)
    return pb.Entry(
        index=entry.index,
        ts=stamp,
        request_id=entry.request_id,
        accessor=entry.accessor,
        op=entry.op,
        path=entry.path,
        version=entry.version,
        outcome=entry.outcome,
        reason=entry.reason,
        client=entry.client,
        producer=entry.producer,
        producer_seq=entry.producer_seq,
        prev_hmac=entry.prev_hmac,
        hmac=entry.hmac,
    )
