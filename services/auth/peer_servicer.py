"""AuthPeerService: uses of tokens that have only so many, taken for the other services."""

from __future__ import annotations

from typing import Any

import grpc.aio

from services.auth.tokens import Tokens
from strongbox.auth.v1 import auth_peer_service_pb2 as pb
from strongbox.auth.v1 import auth_peer_service_pb2_grpc as rpc
from strongbox.rpc.inbound import inbound_of
from strongbox.store.pipeline import Pipeline, Work

Context = grpc.aio.ServicerContext[Any, Any]


class AuthPeerServicer(rpc.AuthPeerServiceServicer):
    """Checked by certificate (see the RPC's rule). The request that uses the token is what is audited."""

    def __init__(self, pipeline: Pipeline, tokens: Tokens) -> None:
        self._pipeline, self._tokens = pipeline, tokens

    async def SpendUse(self, request: pb.SpendUseRequest, context: Context) -> pb.SpendUseResponse:
        """Take one use and number it."""
        deadline = inbound_of(context).deadline
        return pb.SpendUseResponse(use=await self.take(request.token_digest, deadline))

    async def take(self, token_digest: str, deadline: float) -> int:
        """The number of the use. Raises `Unauthenticated`; `deadline` is monotonic."""
        work = Work(lambda view: self._tokens.spend(view, token_digest), None, deadline)
        return (await self._pipeline.submit(work)).value
