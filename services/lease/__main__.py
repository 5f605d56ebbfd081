"""The lease service: leases, database credentials, and the duties that end them. Only assembles."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from services.lease.connections.rotate_root import Rotation
from services.lease.connections.server_cache import Databases
from services.lease.credentials.issue import Issuer
from services.lease.duties.reaper import Follower, Reaper
from services.lease.duties.reconciler import Reconciler
from services.lease.guarded_call import Calls
from services.lease.leases.renew import Renewer
from services.lease.leases.revoke import Revoker
from services.lease.metrics import Measures
from services.lease.revocation_backoff import Backoff
from services.lease.servicer import LeaseServicer
from strongbox.access.guard import Guard
from strongbox.lease.v1.lease_service_pb2_grpc import add_LeaseServiceServicer_to_server
from strongbox.process import Runtime, run
from strongbox.rewrap.rewrap_duty import Rewrap
from strongbox.rewrap.rewrap_kinds import Inner, authenticated
from strongbox.storage.v1.lease_records_pb2 import ConnectionRecord
from strongbox.store import keyspace


async def assemble(runtime: Runtime) -> None:
    """Serve LeaseService; reap, follow and reconcile while this replica holds the duties."""
    settings, keys = runtime.settings, runtime.keys
    guard = Guard(keys)
    calls, databases = Calls(runtime.pipeline, guard), Databases(keys)
    registry = runtime.metrics.registry if runtime.metrics else CollectorRegistry()
    measures = Measures(registry, settings.revoke_backoff_cap_s)
    backoff = Backoff(round(settings.revoke_backoff_s * 1000), round(settings.revoke_backoff_cap_s * 1000))
    revoker = Revoker(runtime.pipeline, guard.lookup, databases, backoff, measures)
    servicer = LeaseServicer(
        calls,
        revoker,
        Renewer(calls, databases),
        Issuer(calls, databases, measures),
        Rotation(calls, databases, keys),
        keys,
        databases,
    )
    keys.on_sealed(databases.close)
    # Seconds until the event loop gives way to a thread that speaks to PostgreSQL; the default is 5 ms (ADR
    # 61).
    sys.setswitchinterval(0.0005)
    runtime.serve(add_LeaseServiceServicer_to_server, servicer, "strongbox.lease.v1.LeaseService")
    reaper = Reaper(runtime.pipeline, guard.lookup, revoker, measures)
    runtime.duty("reaper", reaper.work)
    runtime.duty("follower", Follower(runtime.pipeline, guard.lookup, runtime.etcd).work)
    reconciler = Reconciler(calls, databases, measures, settings.reconcile_every_s)
    runtime.duty("reconciler", reconciler.work)
    inside = {keyspace.POSTGRES_CONNECTIONS: Inner(ConnectionRecord, "envelope", "next_envelope")}
    kinds = authenticated("lease", inside)
    runtime.duty("rewrap-lease", Rewrap(runtime.etcd, runtime.keys, runtime.clock, "lease", kinds).work)


if __name__ == "__main__":
    run("lease", assemble)
