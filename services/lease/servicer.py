"""LeaseService on the wire: each handler validates, decides through the guard, and replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import grpc.aio

from services.lease.leases import ROOT, Leases, Query, Told
from services.lease.messages import info_to_proto
from strongbox.access.guard import Caller, Guard
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease.v1 import lease_service_pb2_grpc as rpc
from strongbox.leases.read_lease import name_in
from strongbox.rpc.inbound import Inbound, inbound_of
from strongbox.store import paging
from strongbox.store.batch import Row
from strongbox.store.pipeline import Outcome, Pipeline, Work
from strongbox.store.view import View
from strongbox.trail.outbox import draft_of

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]
_CHUNK = 200  # leases read by one transaction: each is one compare


class LeaseServicer(rpc.LeaseServiceServicer):
    """Read leases over the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard) -> None:
        self._pipeline, self._guard = pipeline, guard
        self._leases = Leases(guard.lookup)

    async def GetLease(self, request: pb.GetLeaseRequest, context: Context) -> pb.GetLeaseResponse:
        """One lease; the audit record names its path."""
        done = await self._act(
            inbound_of(context), "GetLease", ROOT,
            lambda view, caller: self._leases.get(view, caller, request.id),
        )  # fmt: skip
        return pb.GetLeaseResponse(**info_to_proto(done.value))

    async def RevokeLease(self, request: pb.RevokeLeaseRequest, context: Context) -> pb.RevokeLeaseResponse:
        """End a lease; ending the ended succeeds."""
        done = await self._act(
            inbound_of(context), "RevokeLease", ROOT,
            lambda view, caller: self._leases.revoke(view, caller, request.id),
        )  # fmt: skip
        return pb.RevokeLeaseResponse(id=done.value.record.id, state=done.value.state)

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Context) -> pb.ListLeasesResponse:
        """Leases of a path or of a token; a page may hold fewer than asked, or none, and not be the last."""
        query = Query.parse(request.path, request.accessor, request.state)
        keys, size = self._guard.lookup.require_keys(), paging.page_size(request.page_size)
        start, end = paging.page_range(keys, query.prefix, request.page_token)
        inbound = inbound_of(context)

        def decide(view: View, caller: Caller) -> Caller:
            self._leases.require_query(caller, query)
            view.fetch(start, end, limit=size, keys_only=True)
            return caller

        done = await self._act(inbound, "ListLeases", query.policy_path, decide)
        found = await self._select(inbound, done.value, query, done.rows)
        token = paging.next_token(keys, query.prefix, [row.key for row in done.rows], size)
        return pb.ListLeasesResponse(
            leases=[pb.Lease(**info_to_proto(told)) for told in found], next_page_token=token
        )

    async def _select(
        self, inbound: Inbound, caller: Caller, query: Query, rows: Iterable[Row]
    ) -> list[Told]:
        """The leases that the entries name, as far as they answer the query."""
        found: list[Told] = []
        for names in _chunks(name_in(row.key) for row in rows):
            decide = _selecting(self._leases, caller, query, names)
            done = await self._pipeline.submit(Work(decide, None, inbound.deadline))
            found.extend(done.value)
        return found

    async def _act(
        self, inbound: Inbound, op: str, path: str, decide: Callable[[View, Caller], T]
    ) -> Outcome[T]:
        """Authenticate, decide (which asks for capabilities), audit and carry out in one transaction."""

        def guarded(view: View) -> T:
            return decide(view, self._guard.authenticate(view, inbound))

        return await self._pipeline.submit(Work(guarded, draft_of(inbound, op, path), inbound.deadline))


def _selecting(
    leases: Leases, caller: Caller, query: Query, names: list[str]
) -> Callable[[View], list[Told]]:
    return lambda view: leases.select(view, caller, query, names)


def _chunks(names: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(names, _CHUNK)):
        yield chunk
