"""The lease service: read leases, and the duties that end them. Only assembles."""

from __future__ import annotations

from services.lease.reaper import Follower, Reaper
from services.lease.servicer import LeaseServicer
from strongbox.access.guard import Guard
from strongbox.lease.v1.lease_service_pb2_grpc import add_LeaseServiceServicer_to_server
from strongbox.process import Runtime, run
from strongbox.process.rewrap import Rewrap, authenticated


async def assemble(runtime: Runtime) -> None:
    """Serve LeaseService; reap and follow while this replica holds the duties."""
    guard = Guard(runtime.keys)
    servicer = LeaseServicer(runtime.pipeline, guard)
    runtime.serve(add_LeaseServiceServicer_to_server, servicer, "strongbox.lease.v1.LeaseService")
    runtime.duty("reaper", Reaper(runtime.pipeline, guard.lookup, runtime.clock).work)
    runtime.duty("follower", Follower(runtime.pipeline, guard.lookup, runtime.etcd).work)
    kinds = authenticated("lease")
    runtime.duty("rewrap-lease", Rewrap(runtime.etcd, runtime.keys, runtime.clock, "lease", kinds).work)


if __name__ == "__main__":
    run("lease", assemble)
