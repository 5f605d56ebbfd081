"""`python -m services.seal`: one replica of the seal service. Only assembles."""

from __future__ import annotations

from services.seal.ceremonies.ceremony_exchange import Ceremonies
from services.seal.custody.freshness_watch import Vigil
from services.seal.custody.held_keys import Custody
from services.seal.custody.key_holders import Holders
from services.seal.custody.process_replacement import Rebirth
from services.seal.custody.replica_record import Registry
from services.seal.custody.seal_when_unheld import SealWhenUnheld
from services.seal.key_stream import KeyStream
from services.seal.key_terms.keyring_refresh import Refresher
from services.seal.key_terms.rotate import Rotation
from services.seal.key_terms.terms_duty import Upkeep
from services.seal.key_terms.wrap_counter import Wraps
from services.seal.ordinal import own_ordinal
from services.seal.peer_calls import Peers
from services.seal.peer_servicer import SealPeerServicer
from services.seal.peer_unseal.requester import Newcomer
from services.seal.peer_unseal.responder import Giver
from services.seal.servicer import SealServicer
from services.seal.status.health import Health
from services.seal.status.late_duty_alarm import Alarm
from services.seal.status.readiness import Readiness
from services.seal.unsealing.open_keyring import Opener
from services.seal.unsealing.seal_cluster import Sealing
from services.seal.unsealing.share_exchange import Unsealing
from services.seal.worker_thread import Computing
from strongbox.access.guard import Guard
from strongbox.process import Runtime, run
from strongbox.seal.v1.seal_peer_service_pb2_grpc import add_SealPeerServiceServicer_to_server
from strongbox.seal.v1.seal_service_pb2_grpc import add_SealServiceServicer_to_server


async def assemble(runtime: Runtime) -> None:
    """Serve SealService and SealPeerService; watch over the seal state; get the key from a peer."""
    settings, etcd, pipeline = runtime.settings, runtime.etcd, runtime.pipeline
    session, clock, node = runtime.session, runtime.clock, settings.node_id
    ordinal = own_ordinal(settings.tls_cert)
    custody, peers = Custody(clock), Peers(etcd, settings, lambda: runtime.address)
    runtime.renewal.on_renewed(peers.renew)
    runtime.require_unsealed_since = custody.require_unsealed_since
    registry = Registry(pipeline, session, custody, node, ordinal, lambda: runtime.address)
    opener = Opener(pipeline, custody, registry, clock)
    rebirth = Rebirth(custody, ordinal, runtime.restart)
    # The proof has connections of its own: it never queues behind what is read for an answer.
    holders = Holders(etcd, peers, custody, node)
    unheld = SealWhenUnheld(pipeline, holders)
    vigil = Vigil(runtime.own_etcd(), custody, registry, unheld, rebirth.when_its_turn_comes)
    computing = Computing()
    unsealing = Unsealing(pipeline, peers, holders, opener, computing)
    guard = Guard(custody)
    sealing = Sealing(etcd, pipeline, guard, vigil)
    refresher, wraps = Refresher(etcd, custody), Wraps(pipeline, node)
    rotation = Rotation(pipeline, guard, custody, refresher)
    ceremonies = Ceremonies(pipeline, peers, custody, computing)
    alarm = Alarm(runtime.metrics.registry if runtime.metrics else None)
    health = Health(etcd, custody, node, clock, has_node=settings.profile == "local", alarm=alarm)
    giver = Giver(etcd, pipeline, custody, runtime.slots, settings.peer_unseal)
    servicer = SealServicer(
        pipeline, clock, unsealing, sealing, health, runtime.slots, rebirth, rotation, ceremonies, computing
    )
    runtime.serve(add_SealServiceServicer_to_server, servicer, "strongbox.seal.v1.SealService")
    runtime.serve(
        add_SealPeerServiceServicer_to_server,
        SealPeerServicer(
            KeyStream(custody, refresher, wraps), custody, vigil, unsealing, ceremonies, giver, rebirth
        ),
        "strongbox.seal.v1.SealPeerService",
    )
    runtime.spawn(Readiness(custody, vigil, runtime.health).run())
    several = (vigil.run(), unsealing.catch_up(), health.follow_time(), health.judge_duties())
    for work in (*several, refresher.run(), wraps.run(), ceremonies.tidy()):
        runtime.spawn(work)
    runtime.duty("terms", Upkeep(pipeline, custody, refresher).work)
    if settings.peer_unseal:
        newcomer = Newcomer(
            etcd, pipeline, session, settings.session_ttl_s, peers, opener, vigil, node, ordinal
        )
        runtime.spawn(newcomer.run())


if __name__ == "__main__":
    run("seal", assemble)
