"""The other seal replicas: who they are, and calls to all of them at once.

Those with a live session are found by it; those that are only configured (their session may just be ending,
or beginning) are asked as well, for a shorter time. A replica that happens to ask itself does no harm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Set
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
import structlog

from strongbox.config import Settings
from strongbox.process.presence import address_in
from strongbox.rpc.channel import open_channel
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.seal.v1 import seal_peer_service_pb2_grpc as rpc
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import EtcdError
from strongbox.tls_failures import told

T = TypeVar("T")
if TYPE_CHECKING:
    Stub = rpc.SealPeerServiceAsyncStub
else:  # one class for both at run time
    Stub = rpc.SealPeerServiceStub
_FAREWELL = 6.0  # seconds for calls under way on a channel that is closed; none takes longer
_PATIENCE = 0.5  # seconds with a replica that has no session
# From a replica that is stopped, or of a version without this call.
_DOES_NOT_SAY = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
_log = structlog.get_logger(__name__)


class Peers:
    """Channels to the other replicas. `own()` is the address this one is called at."""

    def __init__(self, etcd: Etcd, settings: Settings, own: Callable[[], str]) -> None:
        self._etcd, self._settings, self._own = etcd, settings, own
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def renew(self) -> None:
        """The certificate was renewed: new calls open new channels; calls under way end on the old ones."""
        self._leave(set(self._channels))

    async def ask_all(self, call: Callable[[Stub, float], Awaitable[T]], deadline: float) -> list[T]:
        """`call(stub, seconds)` on every other replica at once; the answers that came."""
        live = await self.live(deadline)
        soon = min(deadline, time.monotonic() + _PATIENCE)
        configured = {*self._settings.seal_addresses} - live - {self._own()}
        asked = [self.ask(address, call, deadline) for address in live]
        asked += [self.ask(address, call, soon) for address in configured]
        return [answer for answer in await asyncio.gather(*asked) if answer is not None]

    async def live(self, deadline: float) -> set[str]:
        """The addresses of the other replicas that have a session; none when etcd does not answer."""
        prefix = keyspace.NODES + b"seal/"
        try:
            found = await self._etcd.range(prefix, keyspace.prefix_end(prefix), deadline=deadline)
        except EtcdError as error:
            _log.warning("peers are not known", kind=type(error).__name__)
            return set()
        own = keyspace.node("seal", self._settings.node_id)
        others = (row.value for row in found.rows if row.key != own)
        addresses = {address for value in others if (address := address_in(value))}
        self._leave(self._channels.keys() - addresses - {*self._settings.seal_addresses})
        return addresses

    async def ask(
        self, address: str, call: Callable[[Stub, float], Awaitable[T]], deadline: float
    ) -> T | None:
        """One replica's answer; None when it refuses or does not answer."""
        stub = rpc.SealPeerServiceStub(self._channel(address))
        try:
            return await call(stub, max(0.05, deadline - time.monotonic()))
        except grpc.aio.AioRpcError as error:
            told.tell(address, error.details())
            _log.info("a peer did not do as asked", peer=address, code=error.code().name)
            return None

    async def holds(self, address: str, seconds: float) -> bool | None:
        """Whether that replica holds a key; False if it is not there, None if it does not say."""
        stub = rpc.SealPeerServiceStub(self._channel(address))
        try:
            answer = await stub.GetHeldGeneration(pb.GetHeldGenerationRequest(), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            told.tell(address, error.details())
            return None if error.code() in _DOES_NOT_SAY else False
        return answer.generation != 0

    async def close(self) -> None:
        """Close every channel."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(None)

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = open_channel(address, "seal", self._settings)
        return self._channels[address]

    def _leave(self, addresses: Set[str]) -> None:
        """Close channels once the calls under way have ended: closing at once would cancel them."""
        for address in addresses:
            leaving = asyncio.create_task(self._channels.pop(address).close(_FAREWELL))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
