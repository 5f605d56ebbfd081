"""The fake of LeaseService."""

from __future__ import annotations

from typing import Any

from strongbox.lease.v1 import lease_service_pb2 as lease_pb
from strongbox.lease.v1 import lease_service_pb2_grpc as lease_grpc
from tests.support.fake_strongbox.world import World, page_of


class FakeLease(lease_grpc.LeaseServiceServicer):
    """Three leases of every path."""

    def __init__(self, world: World) -> None:
        self.world = world

    def GetLease(self, request: Any, context: Any) -> lease_pb.GetLeaseResponse:
        self.world.admit("GetLease", request, context)
        return lease_pb.GetLeaseResponse(id=request.id, state="ACTIVE")

    def ListLeases(self, request: Any, context: Any) -> lease_pb.ListLeasesResponse:
        self.world.admit("ListLeases", request, context)
        names, token = page_of(["l-1", "l-2", "l-3"], request.page_token, self.world.page)
        leases = [lease_pb.Lease(id=name, state="ACTIVE", path=request.path) for name in names]
        return lease_pb.ListLeasesResponse(leases=leases, next_page_token=token)

    def RevokeLease(self, request: Any, context: Any) -> lease_pb.RevokeLeaseResponse:
        self.world.admit("RevokeLease", request, context)
        return lease_pb.RevokeLeaseResponse(id=request.id, state="REVOKED")
