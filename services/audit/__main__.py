"""`python -m services.audit`: one replica of the chain, its peers' service, and the audit duty."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from services.audit.following import Following
from services.audit.keys import ChainKey
from services.audit.neighbours import live_peers, open_chain_key
from services.audit.peers import AuditPeerServicer, PeerHistory
from services.audit.replica import Replica
from services.audit.segments import Segments
from services.audit.servicer import AuditServicer
from services.audit.trimming import Trimming
from strongbox.access.guard import Guard
from strongbox.audit.v1 import audit_peer_service_pb2_grpc as peer_grpc
from strongbox.audit.v1 import audit_service_pb2_grpc as pb_grpc
from strongbox.process import Runtime, run
from strongbox.process.rewrap import Kind, Rewrap, renew_envelopes
from strongbox.store import keyspace


async def assemble(runtime: Runtime) -> None:
    """Put one audit replica together."""
    settings, etcd = runtime.settings, runtime.etcd
    log = await asyncio.to_thread(Segments, Path(settings.data_dir))
    key = ChainKey()
    replica = Replica(etcd, log, settings.node_id, PeerHistory(partial(live_peers, runtime)))
    servicer = AuditServicer(runtime.pipeline, Guard(runtime.keys), replica, key)
    runtime.serve(pb_grpc.add_AuditServiceServicer_to_server, servicer, "strongbox.audit.v1.AuditService")
    runtime.serve(
        peer_grpc.add_AuditPeerServiceServicer_to_server,
        AuditPeerServicer(log),
        "strongbox.audit.v1.AuditPeerService",
    )
    runtime.duty("audit", Trimming(etcd, replica, runtime.clock, settings.node_id).work)
    kinds = [Kind(prefix, renew_envelopes) for prefix in keyspace.ENVELOPES["audit"]]
    runtime.duty("rewrap-audit", Rewrap(etcd, runtime.keys, runtime.clock, "audit", kinds).work)
    runtime.spawn(Following(runtime.keys, replica, key, partial(open_chain_key, etcd, runtime.keys)).run())


if __name__ == "__main__":
    run("audit", assemble)
