"""The side of peer unseal that asks, as long as the cluster is unsealed and this replica holds no key.

* Shares that are still on their way (after an unsealing by people) are given time first.
* If an earlier process of this node held a key, its session must be seen to have ended: a session key that
  was put over the earlier one does not show that, so this replica ends its own session, waits, and begins a
  new one.
* What a peer gives is believed only after the key check value says that it is the root key.
"""

from __future__ import annotations

import asyncio
import time

import structlog
from google.protobuf.message import DecodeError

from services.seal import cluster_overview, seal_decisions
from services.seal.custody.freshness_watch import Vigil
from services.seal.peer_calls import Peers, Stub
from services.seal.peer_unseal.responder import context_of
from services.seal.repository import SealState
from services.seal.unsealing.open_keyring import Opener
from strongbox.crypto import IntegrityError
from strongbox.crypto.aead import Box
from strongbox.crypto.key_transport import Gift, Receiver
from strongbox.errors import StrongBoxError
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.duties.session import Session
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import EtcdError

_ASK_EVERY = 1.0  # seconds between two rounds of asking
_ASK_SELDOM = 5.0  # seconds between rounds after `_SOON` rounds
_SOON = 10
_SHARES_FIRST = 1.5  # seconds after an unsealing in which the shares themselves are on their way
_ASK_WITHIN = 1.7  # seconds for one peer
_OPEN_WITHIN = 2.0  # seconds for opening what was given
_log = structlog.get_logger(__name__)


class Newcomer:
    """Asks peers for the root key; one per process."""

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
        self._rounds = 0

    async def run(self) -> None:
        """For ever."""
        await self._vigil.seen.wait()
        while True:
            state = self._vigil.state
            if state is None or state.is_sealed or self._opener.is_open:
                self._rounds = 0
            if state is None or state.is_sealed:
                self._sealed_at = time.monotonic()
            elif not self._opener.is_open and time.monotonic() - self._sealed_at > _SHARES_FIRST:
                await self._try(state)
                self._rounds += 1
            # If refusals go on, people have to help; each refusal raises an alert, so ask less often.
            pause = _ASK_EVERY if self._rounds < _SOON else _ASK_SELDOM
            await asyncio.sleep(pause if state is not None and not state.is_sealed else 0.25)

    async def _try(self, state: SealState) -> None:
        try:
            if not (await cluster_overview.take(self._etcd)).is_held:
                return
            await self._have_session_of_own()
            deadline = time.monotonic() + _ASK_WITHIN
            for address in await self._peers.live(deadline):
                if await self._ask(address, state):
                    return
        except (EtcdError, StrongBoxError, DecodeError, ValueError) as error:  # etcd may hold anything
            _log.info("no root key from a peer yet", kind=type(error).__name__)

    async def _ask(self, address: str, state: SealState) -> bool:
        """Ask one peer; returns whether it gave the key, and it is the right one."""
        receiver = Receiver()
        request = pb.RequestRootKeyRequest(node_id=self._node, public_key=receiver.public)
        deadline = time.monotonic() + _ASK_WITHIN

        async def beg(stub: Stub, seconds: float) -> pb.RequestRootKeyResponse:
            return await stub.RequestRootKey(request, timeout=seconds)

        answer = await self._peers.ask(address, beg, deadline)
        if answer is None:
            return False
        deadline = time.monotonic() + _OPEN_WITHIN
        look = Work(seal_decisions.look, None, deadline)
        config = (await self._pipeline.submit(look)).value.config
        box = Box(answer.nonce, answer.ciphertext, answer.tag)
        context = context_of(config.cluster_id, self._ordinal, self._node, answer.generation)
        try:
            root = receiver.open(Gift(answer.public_key, box), *context)
            await self._opener.open(root, config, seal_decisions.BY_PEER, None, deadline)
        except IntegrityError:
            _log.error("what a peer gave is not the root key")
            return False
        _log.info("unsealed by a peer", generation=answer.generation)
        return True

    async def _have_session_of_own(self) -> None:
        """Let an earlier process's session end: a session key that it created does not prove that it has."""
        await self._session.current()
        session = await self._etcd.get(keyspace.node("seal", self._node))
        record = await self._etcd.get(keyspace.seal_replica(self._node))
        if session is None or record is None or not storage.SealReplica.FromString(record.value).holds:
            return
        if session.create_revision > record.mod_revision:
            return
        await self._session.close()
        # If that process was killed, its etcd lease ends within its TTL; etcd looks for expired ones twice a
        # second.
        await asyncio.sleep(self._ttl + 0.5)
        await self._session.start()
        await self._session.current()
