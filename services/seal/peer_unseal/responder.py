"""Peer unseal: a replica that restarts while others hold the key gets it from one of them.

The asking replica is known by its certificate (mutual TLS): `spiffe://strongbox/seal/<ordinal>`. The key is
given if, in the very transaction that records the giving,
* the cluster is unsealed at the generation the giver holds (and the giver's own proof is fresh);
* the ordinal belongs to the node that asks (`replica_record`: since a time when people unsealed), which has
  a live session;
* if an earlier process of that node held a key, its session is gone: the session key that is there now was
  created after that process last wrote its record. The asking replica waits to make that so;
* this ordinal was given nothing in the last 5 s.

The key is encrypted to a fresh X25519 key of the asking replica, bound to cluster, ordinal, node and
generation, so nobody else can open it, on the way or later. The asking replica compares it with the key check
value before use. Each giving is audited before the key leaves, and logged as a warning; each refusal is an
error in the log (`ALERT`) and is counted in the audit chain. The risk is in the threat model: whoever has a
seal replica's certificate *and* its etcd identity, while that replica is down, gets the root key.
"""

from __future__ import annotations

import structlog

from services.seal import repository
from services.seal.custody.held_keys import Custody
from strongbox.audit_outbox.refusal_counts import Slots
from strongbox.crypto.errors import IntegrityError
from strongbox.crypto.key_transport import hand_over
from strongbox.errors import InvalidInput, NoQuorum, PermissionDenied, RateLimited, Sealed
from strongbox.paths import require_name
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd.client import KV, Etcd
from strongbox.store.etcd.errors import EtcdError

ONCE_PER_MS = 5000
ALERT = "a peer was refused the root key"
_log = structlog.get_logger(__name__)


def allow(view: View, node: str, ordinal: str, session: KV, generation: int) -> storage.SealConfig:
    """Decide whether to give the key, and note when. Raises Sealed, PermissionDenied, RateLimited."""
    own, session_key = keyspace.seal_replica(node), keyspace.node("seal", node)
    handed = keyspace.handed(ordinal)
    view.prefetch(
        keyspace.SEAL_CONFIG, keyspace.SEAL_STATE, own, session_key, handed, keyspace.ordinal(ordinal)
    )
    state = repository.require_state(view)
    if state.is_sealed or state.generation != generation:
        raise Sealed
    known = repository.read_replica(view, node)
    owner = view.get(keyspace.ordinal(ordinal)).value
    if known is None or known.ordinal != ordinal or owner != node.encode():
        raise PermissionDenied("this ordinal is not registered for this node")
    if view.get(session_key).mod_revision != session.mod_revision:
        raise PermissionDenied("the node's session changed meanwhile")
    if known.holds and session.create_revision <= view.get(own).mod_revision:
        raise PermissionDenied("the node's earlier session is not gone")
    last = int(view.get(handed).value or b"0")
    if view.now_ms - last < ONCE_PER_MS:
        raise RateLimited
    view.put(handed, b"%d" % view.now_ms)
    return repository.require_config(view)


class Giver:
    """The side that holds the key."""

    def __init__(self, etcd: Etcd, pipeline: Pipeline, custody: Custody, slots: Slots, enabled: bool) -> None:
        self._etcd, self._pipeline, self._custody, self._enabled = etcd, pipeline, custody, enabled
        self._slots = slots

    async def give(
        self, ordinal: str, request: pb.RequestRootKeyRequest, deadline: float
    ) -> pb.RequestRootKeyResponse:
        """The root key for the replica `ordinal`. Raises as `allow`, InvalidInput; refusals are alerts."""
        try:
            return await self._give(ordinal, request, deadline)
        except (PermissionDenied, RateLimited, InvalidInput) as refusal:
            # Whoever asks has a seal replica's certificate: at the wrong time that is an attack, or a replica
            # that is a second too early. The slots keep refusals from filling the audit outbox.
            _log.error(ALERT, ordinal=ordinal, why=refusal.message)
            self._slots.count(f"seal/{ordinal}")
            raise

    async def _give(
        self, ordinal: str, request: pb.RequestRootKeyRequest, deadline: float
    ) -> pb.RequestRootKeyResponse:
        if not self._enabled:
            raise PermissionDenied("peer unseal is switched off")
        node = require_name(request.node_id, "node")
        root, generation = self._custody.root()
        session = await self._session_of(node, deadline)
        draft = Draft(op="PeerUnseal", path="sys/unseal", request_id="", client=f"seal/{ordinal} {node}")
        work = Work(
            lambda view: allow(view, node, ordinal, session, generation), draft, deadline, always=True
        )
        config = (await self._pipeline.submit(work)).value
        _log.warning("the root key was given to a peer", peer=node, ordinal=ordinal)
        # Once more: the commit took time, and the proof may have run out between check and use.
        root, generation = self._custody.root()
        context = context_of(config.cluster_id, ordinal, node, generation)
        with root.view() as secret:
            try:
                gift = hand_over(secret, request.public_key, *context)
            except IntegrityError:
                raise InvalidInput("the public key is none") from None
        return pb.RequestRootKeyResponse(
            public_key=gift.public,
            nonce=gift.box.nonce,
            ciphertext=gift.box.ciphertext,
            tag=gift.box.tag,
            generation=generation,
        )

    async def _session_of(self, node: str, deadline: float) -> KV:
        try:
            found = await self._etcd.get(keyspace.node("seal", node), deadline=deadline)
        except EtcdError:
            raise NoQuorum from None
        if found is None:
            raise PermissionDenied("the node has no session")
        return found


def context_of(cluster_id: str, ordinal: str, node: str, generation: int) -> tuple[str | int, ...]:
    """What a handover is bound to, besides the two public keys."""
    return cluster_id, ordinal, node, generation
