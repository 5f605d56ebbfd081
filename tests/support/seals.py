"""Seal replicas of three lines, over real mutual TLS: they answer the key stream as they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

from strongbox.crypto.aead import Aead
from strongbox.crypto.envelope import Dek, WrappedDek, unwrap_dek, wrap_dek
from strongbox.crypto.errors import IntegrityError
from strongbox.rpc.interceptors.call_log import Reporter
from strongbox.rpc.peer_identity import peer_of
from strongbox.rpc.server import Server
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.seal.v1 import seal_peer_service_pb2_grpc as rpc
from tests.support.certs import Identities

KEK = os.urandom(32)
RECORD_KEYS = {1: b"1" * 32}


class FakeSeal(rpc.SealPeerServiceServicer):
    """One replica. `error`: the reason it refuses with; `delay` in seconds; `asked`: all requests.

    `patient`: a question that may wait is answered by `open`, or with `error` after 0.35 s.
    """

    def __init__(self, identities: Identities) -> None:
        self.identities = identities
        self.error = ""
        self.delay = 0.0
        self.patient = False
        self._opened = asyncio.Event()
        self.record_keys = dict(RECORD_KEYS)
        self.asked: list[pb.StreamKeysRequest] = []
        self.address = ""
        self._server: Server | None = None

    async def start(self, port: int = 0) -> None:
        self._server = Server(self.identities.of("seal"), Reporter())
        self._server.serve(
            rpc.add_SealPeerServiceServicer_to_server, self, "strongbox.seal.v1.SealPeerService"
        )
        self.address = f"127.0.0.1:{self._server.bind(f'127.0.0.1:{port}')}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def start_again(self) -> None:
        await self.start(int(self.address.rpartition(":")[2]))

    def open(self) -> None:
        """Refuse no more, and answer who waits."""
        self.error = ""
        self._opened.set()

    async def StreamKeys(self, requests: Any, context: Any) -> AsyncIterator[pb.StreamKeysResponse]:
        purpose = peer_of(context).service
        async for request in requests:
            self.asked.append(request)
            await asyncio.sleep(self.delay)
            if self.patient and request.wait and self.error:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._opened.wait(), 0.35)
            yield self._answer(purpose, request)

    def _answer(self, purpose: str, request: pb.StreamKeysRequest) -> pb.StreamKeysResponse:
        behind = "DEPENDENCY_DOWN" if request.term > max(self.record_keys) else ""
        reply = pb.StreamKeysResponse(id=request.id, error=self.error or behind)
        if reply.error:
            return reply
        for dek in request.wrap:
            w = wrap_dek(Aead(KEK), purpose, 1, Dek(dek.id, dek.key))
            reply.wrapped.add(id=w.id, term=w.term, ciphertext=w.ciphertext, tag=w.tag, nonce=w.nonce)
        for one in request.unwrap:
            reply.unwrapped.add(id=one.id, key=_opened(purpose, one))
        for one in request.rewrap:
            w = wrap_dek(Aead(KEK), purpose, 1, Dek(one.id, _opened(purpose, one)))
            reply.wrapped.add(id=w.id, term=w.term, ciphertext=w.ciphertext, tag=w.tag, nonce=w.nonce)
        if request.record_keys:
            for term in sorted(self.record_keys, reverse=True):
                reply.record_keys.add(term=term, key=self.record_keys[term])
        return reply


def _opened(purpose: str, one: pb.WrappedDataKey) -> bytes:
    try:
        found = WrappedDek(one.id, one.term, one.ciphertext, one.tag, one.nonce)
        return unwrap_dek(Aead(KEK), purpose, found)
    except IntegrityError:
        return b""
