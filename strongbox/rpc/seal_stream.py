"""One stream to one seal replica: many questions at once, each answer found by its id.

A unary hop costs 0.6 ms of CPU; a stream with batches about a tenth. A link that broke is opened anew by the
next question. A renewed certificate needs a new channel; the old one still answers what was asked on it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.seal.v1 import seal_peer_service_pb2_grpc as rpc
from strongbox.tls_failures import told

AVOID = 2.0  # seconds a link is avoided after a failure
FAREWELL = 3.0  # seconds for what was asked on a channel that is given up: no question has more than 1.5 s


class LinkDown(Exception):
    """The replica did not answer: not reached, too slow, or the stream broke."""


class Link:
    """The stream to the replica at `address`; `open_channel` makes the channel."""

    def __init__(self, address: str, open_channel: Callable[[], grpc.aio.Channel]) -> None:
        self.address = address
        self.bad_until = 0.0
        self._open_channel = open_channel
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[pb.StreamKeysResponse]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def ask(self, request: pb.StreamKeysRequest, timeout: float) -> pb.StreamKeysResponse:
        """The answer to `request` (its id is set here).

        Raises LinkDown, after `timeout` seconds at the latest. What was asked may have been carried out:
        wrapping and unwrapping twice is the same as once.
        """
        request.id = next(self._ids)
        answer = asyncio.get_running_loop().create_future()
        self._asked[request.id] = answer
        try:
            async with asyncio.timeout(timeout):
                await self._write(request)
                got: pb.StreamKeysResponse = await answer
                return got
        except (TimeoutError, OSError, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            self.bad_until = time.monotonic() + AVOID
            raise LinkDown from None
        except LinkDown:
            self.bad_until = time.monotonic() + AVOID
            raise
        finally:
            self._asked.pop(request.id, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieved, so that asyncio does not log it as lost

    def stay_connected(self) -> None:
        """Begin to connect, unless that is done, so that the next question need not. Raises OSError."""
        if self._channel is None:
            self._channel = self._open_channel()
        self._channel.get_state(try_to_connect=True)

    def renew(self) -> None:
        """Ask the next question over a new channel, with the certificate as it is now."""
        if self._channel is None:
            return
        leaving = asyncio.create_task(_bid_farewell(self._channel, self._reader, self._call))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        self._channel = self._call = self._reader = None

    async def close(self) -> None:
        """End the stream; whoever waits gets LinkDown."""
        for leaving in self._leaving:
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        self._drop(self._call)
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def _write(self, request: pb.StreamKeysRequest) -> None:
        # One write at a time is gRPC's rule for a stream.
        async with self._writing:
            if self._call is None:
                self._open()
            call = self._call
            try:
                await call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                if call.done():  # it says why at once
                    told.tell(self.address, await call.details())
                self._drop(call)
                raise

    def _open(self) -> None:
        if self._channel is None:
            self._channel = self._open_channel()
        stub: Any = rpc.SealPeerServiceStub(self._channel)
        self._call = stub.StreamKeys()
        self._reader = asyncio.create_task(self._read(self._call), name=f"keys from {self.address}")

    async def _read(self, call: Any) -> None:
        try:
            while isinstance(got := await call.read(), pb.StreamKeysResponse):
                waiting = self._asked.get(got.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(got)
        except grpc.aio.AioRpcError as failure:
            told.tell(self.address, failure.details())
        except asyncio.InvalidStateError:
            pass
        finally:
            self._drop(call)

    def _drop(self, call: Any) -> None:
        """This stream is over, if it is still the one in use; those who wait ask elsewhere."""
        if self._call is not call:
            return
        self._call = None
        if call is not None:
            call.cancel()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(LinkDown())


async def _bid_farewell(channel: grpc.aio.Channel, reader: asyncio.Task[None] | None, call: Any) -> None:
    """Read on for `FAREWELL` seconds, longer than any question lasts, then close."""
    try:
        await asyncio.sleep(FAREWELL)
    finally:
        if reader is not None:
            reader.cancel()
        if call is not None:
            call.cancel()
        await channel.close(None)
