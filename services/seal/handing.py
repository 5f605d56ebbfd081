"""Peer unseal: a replica that restarts while others hold the key gets it from one of them.

Who asks is known by his certificate (mutual TLS): `spiffe://strongbox/seal/<ordinal>`. The key is given
when, in the very transaction that records the giving,
* the cluster is unsealed at the generation the giver holds (and his own proof is fresh);
* the ordinal is the one registered for the node that asks, and that node has a live session;
* if an earlier process of that node held a key, its session is gone: the session key that is there now was
  created after that process last spoke. The newcomer sees to it by waiting (`_have_session_of_own`);
* this ordinal was given nothing in the last 5 s.
It goes encrypted to the newcomer's fresh X25519 key, bound to cluster, ordinal, node and generation, so
nobody on the way, and nobody else later, opens it. The newcomer checks the key against the key check value
before use. Each giving is audited before it leaves, and logged as a warning. What this costs is in the
threat model: whoever has a seal replica's certificate *and* its etcd identity, while that replica is down,
gets the root key.
"""

from __future__ import annotations

import asyncio
import time

import grpc.aio
import structlog

from services.seal import repository, unseal
from services.seal.custody import Custody
from services.seal.opening import Opener
from services.seal.peers import Peers, Stub
from services.seal.repository import SealState
from services.seal.vigil import Vigil
from strongbox.crypto import IntegrityError
from strongbox.crypto.aead import Box
from strongbox.crypto.handover import Gift, Receiver, hand_over
from strongbox.errors import NoQuorum, PermissionDenied, RateLimited, Sealed, StrongBoxError
from strongbox.paths import require_name
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.client import KV, Etcd
from strongbox.store.errors import EtcdError
from strongbox.store.journal import Draft
from strongbox.store.pipeline import Pipeline, Work
from strongbox.store.session import Session
from strongbox.store.view import View

ONCE_PER_MS = 5000
_ASK_EVERY = 1.0  # seconds between two rounds of asking
_SHARES_FIRST = 1.5  # seconds after an unsealing in which the shares themselves are on their way
_ASK_WITHIN = 1.7  # seconds for one peer
_log = structlog.get_logger(__name__)


def allow(view: View, node: str, ordinal: str, session: KV, generation: int) -> storage.SealConfig:
    """Decide to give, and note it. Raises Sealed, PermissionDenied, RateLimited."""
    own, session_key = keyspace.seal_replica(node), keyspace.node("seal", node)
    handed = keyspace.handed(ordinal)
    view.prefetch(keyspace.SEAL_CONFIG, keyspace.SEAL_STATE, own, session_key, handed)
    state = repository.require_state(view)
    if state.is_sealed or state.generation != generation:
        raise Sealed
    known = repository.read_replica(view, node)
    if known is None or known.ordinal != ordinal:
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

    def __init__(self, etcd: Etcd, pipeline: Pipeline, custody: Custody, enabled: bool) -> None:
        self._etcd, self._pipeline, self._custody, self._enabled = etcd, pipeline, custody, enabled

    async def give(
        self, ordinal: str, request: pb.RequestRootKeyRequest, deadline: float
    ) -> pb.RequestRootKeyResponse:
        """The root key for the replica `ordinal`. Raises as the module says."""
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
        # Once more: the commit took its time, and between check and use the proof may have run out.
        root, generation = self._custody.root()
        context = _context(config.cluster_id, ordinal, node, generation)
        with root.view() as secret:
            gift = hand_over(secret, request.public_key, *context)
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


class Newcomer:
    """The side that asks, as long as the cluster is unsealed and this replica is not."""

    def __init__(
        self,
        etcd: Etcd,
        pipeline: Pipeline,
        session: Session,
        session_ttl: int,
        peers: Peers,
        opener: Opener,
        vigil: Vigil,
        node: str,
        ordinal: str,
    ) -> None:
        self._etcd, self._pipeline, self._session, self._ttl = etcd, pipeline, session, session_ttl
        self._peers, self._opener, self._vigil = peers, opener, vigil
        self._node, self._ordinal = node, ordinal
        self._sealed_at = 0.0

    async def run(self) -> None:
        """For ever."""
        await self._vigil.seen.wait()
        while True:
            state = self._vigil.state
            if state is None or state.is_sealed:
                self._sealed_at = time.monotonic()
            elif not self._opener.is_open and time.monotonic() - self._sealed_at > _SHARES_FIRST:
                await self._try(state)
            await asyncio.sleep(_ASK_EVERY if state is not None and not state.is_sealed else 0.25)

    async def _try(self, state: SealState) -> None:
        try:
            self._opener.require_lasting()
            await self._have_session_of_own()
            deadline = time.monotonic() + _ASK_WITHIN
            for stub in await self._peers.stubs(deadline):
                if await self._ask(stub, state):
                    return
        except (EtcdError, StrongBoxError) as error:
            _log.info("no root key from a peer yet", kind=type(error).__name__)

    async def _ask(self, stub: Stub, state: SealState) -> bool:
        """Whether this peer gave the key, and it is the right one."""
        receiver = Receiver()
        request = pb.RequestRootKeyRequest(node_id=self._node, public_key=receiver.public)
        deadline = time.monotonic() + _ASK_WITHIN
        try:
            answer = await stub.RequestRootKey(request, timeout=_ASK_WITHIN)
        except grpc.aio.AioRpcError as error:
            _log.info("a peer gave no root key", code=error.code().name)
            return False
        look = Work(unseal.look, None, deadline)
        config = (await self._pipeline.submit(look)).value.config
        box = Box(answer.nonce, answer.ciphertext, answer.tag)
        context = _context(config.cluster_id, self._ordinal, self._node, answer.generation)
        try:
            root = receiver.open(Gift(answer.public_key, box), *context)
            await self._opener.open(root, config, state.late_nonce, None, deadline)
        except IntegrityError:
            _log.error("what a peer gave is not the root key")
            return False
        _log.info("unsealed by a peer", generation=answer.generation)
        return True

    async def _have_session_of_own(self) -> None:
        """Let an earlier process's session end: a key that it created is not proof of its end."""
        await self._session.current()
        session = await self._etcd.get(keyspace.node("seal", self._node))
        record = await self._etcd.get(keyspace.seal_replica(self._node))
        if session is None or record is None or not storage.SealReplica.FromString(record.value).holds:
            return
        if session.create_revision > record.mod_revision:
            return
        await self._session.close()
        # Its etcd lease, if it was killed, ends within its TTL; etcd looks for dead ones twice a second.
        await asyncio.sleep(self._ttl + 0.5)
        await self._session.start()
        await self._session.current()


def _context(cluster_id: str, ordinal: str, node: str, generation: int) -> tuple[str | int, ...]:
    return cluster_id, ordinal, node, generation
