"""SealPeerService on the wire: what seal does for its peers, which their certificates identify."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from services.seal.ceremonies.ceremony_exchange import Ceremonies
from services.seal.custody.freshness_watch import Vigil
from services.seal.custody.held_keys import Custody
from services.seal.custody.process_replacement import Rebirth
from services.seal.key_stream import KeyStream, require_purpose
from services.seal.peer_unseal.responder import Giver
from services.seal.unsealing.share_exchange import Unsealing
from strongbox.rpc.peer_identity import peer_of
from strongbox.rpc.request_context import inbound_of
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.seal.v1 import seal_peer_service_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class SealPeerServicer(rpc.SealPeerServiceServicer):
    """Shares and the root key between replicas; keys for the services."""

    def __init__(
        self,
        keys: KeyStream,
        custody: Custody,
        vigil: Vigil,
        unsealing: Unsealing,
        ceremonies: Ceremonies,
        giver: Giver,
        rebirth: Rebirth,
    ) -> None:
        self._keys, self._custody, self._vigil, self._unsealing = keys, custody, vigil, unsealing
        self._ceremonies, self._giver, self._rebirth = ceremonies, giver, rebirth

    async def RelayShares(self, request: pb.RelaySharesRequest, context: Context) -> pb.RelaySharesResponse:
        """Take a peer's shares, complete if that is enough, answer with those it did not send."""
        return await self._unsealing.relayed(request.nonce, request.shares, inbound_of(context).deadline)

    async def ExchangeShares(
        self, request: pb.ExchangeSharesRequest, context: Context
    ) -> pb.ExchangeSharesResponse:
        """Take a peer's shares of a rekey or generate-root, answer with those it did not send."""
        return await self._ceremonies.exchanged(request, inbound_of(context).deadline)

    async def RequestRootKey(
        self, request: pb.RequestRootKeyRequest, context: Context
    ) -> pb.RequestRootKeyResponse:
        """Give the root key to a replica that restarted."""
        ordinal = peer_of(context).ordinal
        return await self._giver.give(str(ordinal), request, inbound_of(context).deadline)

    async def GetHeldGeneration(
        self, request: pb.GetHeldGenerationRequest, context: Context
    ) -> pb.GetHeldGenerationResponse:
        """The generation of the key that this replica holds; 0: none."""
        return pb.GetHeldGenerationResponse(generation=self._custody.generation or 0)

    async def StreamKeys(
        self, requests: AsyncIterator[pb.StreamKeysRequest], context: Context
    ) -> AsyncIterator[pb.StreamKeysResponse]:
        """Answer each question in order, as long as the stream lasts."""
        purpose = require_purpose(peer_of(context).service)
        with self._rebirth.streaming():
            async for request in requests:
                yield await self._keys.answer(purpose, request, self._vigil.state)
