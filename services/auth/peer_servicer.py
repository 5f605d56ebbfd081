"""AuthPeerService: takes uses of tokens with a limited number of uses, for the other services."""

from __future__ import annotations

from typing import Any

import grpc.aio

from services.auth.tokens import Tokens
from strongbox.auth.v1 import auth_peer_service_pb2 as pb
from strongbox.auth.v1 import auth_peer_service_pb2_grpc as rpc
from strongbox.errors import InvalidInput, UnknownOutcome
from strongbox.rpc.request_context import inbound_of
from strongbox.store.decisions.pipeline import Pipeline, Work

MAX_REQUEST_ID = 64  # characters; a UUID has 36
Context = grpc.aio.ServicerContext[Any, Any]


class AuthPeerServicer(rpc.AuthPeerServiceServicer):
    """Peers are checked by certificate (see the RPC's rule). The request that uses the token is audited."""

    def __init__(self, pipeline: Pipeline, tokens: Tokens) -> None:
        self._pipeline, self._tokens = pipeline, tokens

    async def SpendUse(self, request: pb.SpendUseRequest, context: Context) -> pb.SpendUseResponse:
        """Take one use and number it."""
        deadline = inbound_of(context).deadline
        use = await self.take(request.token_digest, request.request_id, deadline)
        return pb.SpendUseResponse(use=use)

    async def take(self, token_digest: str, request_id: str, deadline: float) -> int:
        """The number of the use taken, the same for one request. `deadline` is monotonic.

        Raises `Unauthenticated`. If the outcome is unknown, it is asked for once more: the token's record
        then says.
        """
        if len(request_id) > MAX_REQUEST_ID:
            raise InvalidInput("a request id is short")
        work = Work(lambda view: self._tokens.spend(view, token_digest, request_id), None, deadline)
        try:
            return (await self._pipeline.submit(work)).value
        except UnknownOutcome:
            return (await self._pipeline.submit(work)).value
