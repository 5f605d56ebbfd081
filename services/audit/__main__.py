"""`python -m services.audit`: one replica of the chain, its peers' service, and the audit duty."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from services.audit.duties.audit_duty import Trimming
from services.audit.duties.retention import retention_of
from services.audit.following.peer_history import AuditPeerServicer, PeerHistory
from services.audit.following.replica import Replica
from services.audit.following.run_while_unsealed import Following
from services.audit.key_loading import REWRAPPED, live_peers, new_chain_key, open_keys
from services.audit.keys import AuditKeys
from services.audit.log.find_beginning import Copies
from services.audit.log.segments import Segments
from services.audit.proofs.checkpoint_publisher import Publisher
from services.audit.servicer import AuditServicer
from services.audit.serving.health import Reporting
from services.audit.serving.stdout_copy import StandardOutput
from strongbox.access.guard import Guard
from strongbox.audit.v1 import audit_peer_service_pb2_grpc as peer_grpc
from strongbox.audit.v1 import audit_service_pb2_grpc as pb_grpc
from strongbox.process import Runtime, run
from strongbox.rewrap.rewrap_duty import Rewrap


async def assemble(runtime: Runtime) -> None:
    """Put one audit replica together."""
    settings, etcd = runtime.settings, runtime.etcd
    log = await asyncio.to_thread(Segments, Path(settings.data_dir))
    keys = AuditKeys(partial(open_keys, etcd, runtime.keys))
    copies = StandardOutput() if settings.audit_stdout else None
    history = PeerHistory(partial(live_peers, runtime))
    found = Copies(settings.audit_archive or None, history.markers)
    replica = Replica(etcd, log, settings.node_id, history, copies.give if copies else None, found)
    publisher = Publisher(etcd, replica, keys)
    retention = retention_of(settings, etcd, replica, keys)
    new_key = partial(new_chain_key, runtime.keys)
    servicer = AuditServicer(
        runtime.pipeline, Guard(runtime.keys), replica, keys, publisher, new_key, retention
    )
    runtime.serve(pb_grpc.add_AuditServiceServicer_to_server, servicer, "strongbox.audit.v1.AuditService")
    runtime.serve(
        peer_grpc.add_AuditPeerServiceServicer_to_server,
        AuditPeerServicer(log),
        "strongbox.audit.v1.AuditPeerService",
    )
    duty = Trimming(etcd, replica, runtime.clock, settings.node_id, publisher)
    runtime.duty("audit", duty.work)
    runtime.duty("rewrap-audit", Rewrap(etcd, runtime.keys, runtime.clock, "audit", REWRAPPED).work)
    runtime.spawn(Following(runtime.keys, replica, keys).run())
    runtime.spawn(retention.run())
    runtime.spawn(Reporting(runtime, replica, duty, copies, retention).run())


if __name__ == "__main__":
    run("audit", assemble)
