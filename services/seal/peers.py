"""The other seal replicas: who they are, and calls to all of them at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
import structlog

from strongbox.config import Settings
from strongbox.rpc.channel import open_channel
from strongbox.seal.v1 import seal_peer_service_pb2_grpc as rpc
from strongbox.store import keyspace
from strongbox.store.client import Etcd
from strongbox.store.errors import EtcdError

T = TypeVar("T")
if TYPE_CHECKING:
    Stub = rpc.SealPeerServiceAsyncStub
else:  # one class for both at run time
    Stub = rpc.SealPeerServiceStub
_log = structlog.get_logger(__name__)


class Peers:
    """Channels to the live replicas, by the addresses in their session keys."""

    def __init__(self, etcd: Etcd, settings: Settings) -> None:
        self._etcd, self._settings = etcd, settings
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def ask_all(self, call: Callable[[Stub, float], Awaitable[T]], deadline: float) -> list[T]:
        """`call(stub, seconds left)` on every other live replica at once; the answers that came."""
        stubs = await self.stubs(deadline)
        answers = await asyncio.gather(*(self._ask(stub, call, deadline) for stub in stubs))
        return [answer for answer in answers if answer is not None]

    async def stubs(self, deadline: float) -> list[Stub]:
        """One for every other live replica; none when etcd does not answer."""
        prefix = keyspace.NODES + b"seal/"
        try:
            found = await self._etcd.range(prefix, keyspace.prefix_end(prefix), deadline=deadline)
        except EtcdError as error:
            _log.warning("peers are not known", kind=type(error).__name__)
            return []
        own = keyspace.node("seal", self._settings.node_id)
        addresses = {str(json.loads(row.value)["address"]) for row in found.rows if row.key != own}
        await self._close(self._channels.keys() - addresses)
        return [rpc.SealPeerServiceStub(self._channel(address)) for address in sorted(addresses)]

    async def close(self) -> None:
        """Close every channel."""
        await self._close(set(self._channels))

    async def _ask(
        self, stub: Stub, call: Callable[[Stub, float], Awaitable[T]], deadline: float
    ) -> T | None:
        try:
            return await call(stub, max(0.05, deadline - time.monotonic()))
        except grpc.aio.AioRpcError as error:
            _log.warning("a peer did not answer", code=error.code().name)
            return None

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = open_channel(address, "seal", self._settings)
        return self._channels[address]

    async def _close(self, addresses: set[str]) -> None:
        for address in addresses:
            await self._channels.pop(address).close(None)
