"""Leases: who holds what until when."""

from __future__ import annotations

from collections.abc import Iterator

from strongbox.client.conversions import to_duration
from strongbox.client.transport import Wire
from strongbox.errors import InvalidInput
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease.v1.lease_service_pb2_grpc import LeaseServiceStub


class Leases:
    """Leases of secrets that were read, and of database credentials."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = LeaseServiceStub(wire.channel)

    def get(self, lease_id: str) -> pb.GetLeaseResponse:
        """One lease."""
        return self._wire.call(self._stub.GetLease, pb.GetLeaseRequest(id=_named(lease_id)))

    def revoke(self, lease_id: str) -> pb.RevokeLeaseResponse:
        """End a lease. Revoking it again succeeds."""
        request = pb.RevokeLeaseRequest(id=_named(lease_id))
        return self._wire.call(self._stub.RevokeLease, request, slow=True)

    def renew(self, lease_id: str, increment: str | int | None = None) -> pb.RenewLeaseResponse:
        """Move a lease's expiry: `increment` from now, whole seconds or text such as "90s" or "1h"."""
        request = pb.RenewLeaseRequest(id=_named(lease_id), increment=to_duration(increment))
        return self._wire.call(self._stub.RenewLease, request, slow=True)

    def revoke_prefix(self, prefix: str) -> tuple[int, int]:
        """End all leases whose policy path begins so; how many are revoked, and how many are pending."""
        revoked, pending, token = 0, 0, ""
        while True:
            request = pb.RevokeLeasePrefixRequest(prefix=prefix, page_token=token)
            page = self._wire.call(self._stub.RevokeLeasePrefix, request, slow=True)
            revoked, pending, token = revoked + page.revoked, pending + page.pending, page.next_page_token
            if not token:
                return revoked, pending

    def list(self, *, path: str = "", accessor: str = "", state: str = "") -> Iterator[pb.Lease]:
        """Leases of a policy path (`secret/app/db`) or of a token, page by page as they are asked for."""
        token = ""
        while True:
            request = pb.ListLeasesRequest(path=path, accessor=accessor, state=state, page_token=token)
            page = self._wire.call(self._stub.ListLeases, request)
            yield from page.leases
            token = page.next_page_token
            if not token:
                return


def _named(lease_id: str) -> str:
    if not lease_id or "/" in lease_id:
        raise InvalidInput("a lease's id is needed; it has no slash")
    return lease_id
