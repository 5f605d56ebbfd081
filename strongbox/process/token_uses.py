"""Uses of tokens that have a limited number: auth takes one for each request, before the request is decided.

* Auth is the only writer of a token's record, so another service that is shown such a token asks a live auth
  replica, found by its session key in etcd; its own node's first. For other tokens nothing is asked.
* A use is taken for one request and never given back. It is taken under the request's id, which the gateway
  makes: asking again for the same request, because an answer was lost, gives the same use.
* So when a replica cannot be reached, or cannot say what became of it, the next is asked; a refusal is final.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import grpc.aio

from strongbox.access.token_format import digest
from strongbox.auth.v1 import auth_peer_service_pb2 as pb
from strongbox.auth.v1.auth_peer_service_pb2_grpc import AuthPeerServiceStub
from strongbox.config import Settings
from strongbox.errors import DependencyDown, NoQuorum, Unavailable, UnknownOutcome
from strongbox.process.presence import address_in
from strongbox.rpc.channel import open_channel
from strongbox.rpc.error_mapping import to_error
from strongbox.rpc.request_context import Inbound
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import EtcdError

KNOWN_FOR = 2.0  # seconds for which the replicas' addresses are believed
# (the token's digest, the request's id, monotonic deadline) → the use's number
Take = Callable[[str, str, float], Awaitable[int]]


class Uses:
    """One per process. `take` is how a use is taken; auth itself sets its own way."""

    def __init__(self, settings: Settings, etcd: Etcd) -> None:
        self.take: Take = self._ask
        self._settings, self._etcd = settings, etcd
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._addresses: list[str] = []
        self._known_until = 0.0

    async def spend(self, inbound: Inbound) -> Inbound:
        """The request with a use taken for it. Raises `Unauthenticated` when there is none left."""
        return replace(
            inbound, use=await self.take(digest(inbound.token), inbound.request_id, inbound.deadline)
        )

    async def close(self) -> None:
        """End the connections."""
        for channel in self._channels.values():
            await channel.close(None)

    async def _ask(self, token_digest: str, request_id: str, deadline: float) -> int:
        for address in await self._replicas(deadline):
            try:
                return await self._ask_at(address, token_digest, request_id, deadline)
            except UnknownOutcome:
                continue
            except Unavailable as error:
                if type(error) is not Unavailable:  # an answer of auth's own
                    raise
                self._known_until = 0.0
        raise DependencyDown("no auth replica answers")

    async def _ask_at(self, address: str, token_digest: str, request_id: str, deadline: float) -> int:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = open_channel(address, "auth", self._settings)
        request = pb.SpendUseRequest(token_digest=token_digest, request_id=request_id)
        left = deadline - time.monotonic()
        try:
            answer = await AuthPeerServiceStub(channel).SpendUse(request, timeout=max(0.0, left))
        except grpc.aio.AioRpcError as failure:
            raise to_error(failure) from None
        return answer.use

    async def _replicas(self, deadline: float) -> list[str]:
        """Addresses of the live auth replicas, the own node's first. Raises NoQuorum."""
        if time.monotonic() >= self._known_until:
            prefix = keyspace.NODES + b"auth/"
            try:
                reply = await self._etcd.range(prefix, keyspace.prefix_end(prefix), deadline=deadline)
            except EtcdError:
                raise NoQuorum from None
            own = keyspace.node("auth", self._settings.node_id)
            found = sorted(reply.rows, key=lambda row: row.key != own)
            self._addresses = [address for row in found if (address := address_in(row.value))]
            self._known_until = time.monotonic() + KNOWN_FOR
        return self._addresses
