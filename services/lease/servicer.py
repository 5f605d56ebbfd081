"""LeaseService on the wire: each handler validates, decides through the guard, and replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import grpc.aio

from services.lease.calls.connections import ConnectionCalls
from services.lease.calls.database_roles import RoleCalls
from services.lease.connections.connection_passwords import Keys
from services.lease.connections.rotate_root import Rotation
from services.lease.connections.server_cache import Databases
from services.lease.credentials.issue import Issuer
from services.lease.guarded_call import Calls, Decide
from services.lease.leases.lease_decisions import ROOT, Leases, Query, Told, ranges_of, require_prefix
from services.lease.leases.renew import Renewer
from services.lease.leases.revoke import Revoker
from services.lease.messages import info_to_proto
from strongbox.access.guard import Caller
from strongbox.audit_outbox.outbox import draft_of
from strongbox.durations import parse_duration
from strongbox.errors import InvalidInput, PermissionDenied, Unauthenticated
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease_records.index import name_in
from strongbox.rpc.request_context import Inbound, inbound_of
from strongbox.store import keyspace, paging
from strongbox.store.decisions.view import Row, View

Context = grpc.aio.ServicerContext[Any, Any]
_CHUNK = 200  # leases read by one transaction: each is one compare
_ENDED = 30  # leases ended by one transaction: each writes up to eight keys
_PAGE = 600  # leases of one call that ends a prefix


class LeaseServicer(ConnectionCalls, RoleCalls):
    """The whole service; what is about leases themselves is here."""

    def __init__(
        self,
        calls: Calls,
        revoker: Revoker,
        renewer: Renewer,
        issuer: Issuer,
        rotation: Rotation,
        keys: Keys,
        databases: Databases,
    ) -> None:
        self._calls, self._revoker, self._renewer = calls, revoker, renewer
        self._issuer, self._rotation, self._keys = issuer, rotation, keys
        self._databases, self._leases = databases, Leases(calls.guard)

    async def GetLease(self, request: pb.GetLeaseRequest, context: Context) -> pb.GetLeaseResponse:
        """One lease; the audit record names its path."""
        done = await self._calls.act(
            inbound_of(context), "GetLease", ROOT,
            lambda view, caller: self._leases.get(view, caller, request.id),
        )  # fmt: skip
        return pb.GetLeaseResponse(**info_to_proto(done.value))

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        """Move a lease's expiry, in PostgreSQL first: there it may end later than here, never earlier."""
        increment = parse_duration(request.increment, "increment")
        if increment == 0:
            raise InvalidInput("increment is at least one second")
        told = await self._renewer.renew(inbound_of(context), request.id, increment)
        return pb.RenewLeaseResponse(**info_to_proto(told), ttl=told.ttl_s)

    async def RevokeLease(self, request: pb.RevokeLeaseRequest, context: Context) -> pb.RevokeLeaseResponse:
        """End a lease; ending an ended one succeeds. If PostgreSQL is down it is pending, and ended later."""
        inbound = inbound_of(context)
        done = await self._calls.act(
            inbound, "RevokeLease", ROOT,
            lambda view, caller: self._leases.revoke(view, caller, request.id),
        )  # fmt: skip
        told = await self._ended(inbound, done.value)
        return pb.RevokeLeaseResponse(**info_to_proto(told))

    async def RevokeLeasePrefix(
        self, request: pb.RevokeLeasePrefixRequest, context: Context
    ) -> pb.RevokeLeasePrefixResponse:
        """End a page of the leases below a prefix, as far as the caller may."""
        prefix, inbound = require_prefix(request.prefix), inbound_of(context)
        keys = self._calls.guard.lookup.require_keys()
        below = keyspace.LEASES_BY_PATH + prefix.encode()
        after, _ = paging.page_range(keys, below, request.page_token)

        def decide(view: View, caller: Caller) -> None:
            caller.require("delete", ROOT + prefix)
            for start, end in ranges_of(prefix):
                if after < end:
                    view.fetch(max(start, after), end, limit=_PAGE, keys_only=True)

        done = await self._calls.act(inbound, "RevokeLeasePrefix", ROOT + prefix, decide)
        page, ended = [row.key for row in done.rows[:_PAGE]], list[Told]()
        for names in _chunks(map(name_in, page), _ENDED):
            ending = _ending(self._leases, inbound, prefix, names)
            ended += (await self._calls.after(inbound, ending)).value
        pending = {told.record.id for told in ended if told.state != "REVOKED"}
        pending -= await self._revoker.end_within(inbound.deadline, sorted(pending))
        token = paging.next_token(keys, below, page, _PAGE)
        return pb.RevokeLeasePrefixResponse(
            revoked=len(ended) - len(pending), pending=len(pending), next_page_token=token
        )

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Context) -> pb.ListLeasesResponse:
        """Leases of a path or of a token; a page may hold fewer than asked, or none, and not be the last."""
        query = Query.parse(request.path, request.accessor, request.state)
        keys, size = self._calls.guard.lookup.require_keys(), paging.page_size(request.page_size)
        start, end = paging.page_range(keys, query.prefix, request.page_token)
        inbound = inbound_of(context)

        def decide(view: View, caller: Caller) -> None:
            self._leases.require_query(caller, query)
            view.fetch(start, end, limit=size, keys_only=True)

        done = await self._calls.act(inbound, "ListLeases", query.policy_path, decide)
        found = await self._select(inbound, query, done.rows)
        token = paging.next_token(keys, query.prefix, [row.key for row in done.rows], size)
        return pb.ListLeasesResponse(
            leases=[pb.Lease(**info_to_proto(told)) for told in found], next_page_token=token
        )

    async def _select(self, inbound: Inbound, query: Query, rows: Iterable[Row]) -> list[Told]:
        """The leases that the entries name, as far as they answer the query."""
        found: list[Told] = []
        for names in _chunks((name_in(row.key) for row in rows), _CHUNK):
            found += (await self._calls.after(inbound, _selecting(self._leases, query, names))).value
        return found

    async def _ended(self, inbound: Inbound, told: Told) -> Told:
        """The lease after the attempt to drop its role."""
        if told.state not in ("REVOCATION_PENDING", "ABANDONED"):
            return told
        await self._revoker.end_within(inbound.deadline, [told.record.id])
        try:
            after = await self._calls.after(inbound, lambda view, _: self._leases.told(view, told.record.id))
        except (Unauthenticated, PermissionDenied):  # revoked meanwhile: the answer is what was proved before
            return told
        return after.value or told


def _selecting(leases: Leases, query: Query, names: list[str]) -> Decide[list[Told]]:
    return lambda view, caller: leases.select(view, caller, query, names)


def _ending(leases: Leases, inbound: Inbound, prefix: str, names: list[str]) -> Decide[list[Told]]:
    """End what is below a prefix, and record each end with it."""

    def decide(view: View, caller: Caller) -> list[Told]:
        ended = leases.end_below(view, caller, prefix, names)
        for told in ended:
            draft = draft_of(inbound, "RevokeLease", ROOT + told.record.path)
            view.record(replace(draft, accessor=caller.accessor))
        return ended

    return decide


def _chunks(names: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(islice(names, size)):
        yield chunk
