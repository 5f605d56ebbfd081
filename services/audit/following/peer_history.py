"""History from peers: how a replica behind the mark gets the entries that the outbox no longer holds.

A peer's lines are believed only as far as the chain's key proves them: each is verified in order on top of
what this replica holds, and the copy ends exactly at the mark's size, where its HMAC must be the mark's. So a
lying peer can delay, never falsify.

A peer that has archived what is asked for answers with its marker, which is made with the chain's key and so
proves as much as a line. Only if no peer has the lines themselves does this log begin at that marker; the
entries it holds are then set aside, since they are in the archive too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import grpc.aio
import structlog

from services.audit.following.position import Position
from services.audit.log.repair import adopt
from services.audit.log.segments import Segments
from strongbox.audit.v1 import audit_peer_service_pb2 as pb
from strongbox.audit.v1 import audit_peer_service_pb2_grpc as pb_grpc
from strongbox.audit_log.archive_marker import Archived, Marker, parse
from strongbox.audit_log.chain import Entry, Keys, MissingKey, Tampered, Verifier
from strongbox.store.etcd.errors import Unavailable

_CHUNK = 256  # lines in a message: about 130 KB
_TIMEOUT = 300.0  # seconds for a whole copy
_SOON = 3.0  # seconds for a first message
_log = structlog.get_logger(__name__)


class AuditPeerServicer(pb_grpc.AuditPeerServiceServicer):
    """Gives this replica's lines to its peers (checked by certificate, see the RPC's rule)."""

    def __init__(self, log: Segments) -> None:
        self._log = log

    async def StreamLines(
        self, request: pb.StreamLinesRequest, context: Any
    ) -> AsyncIterator[pb.StreamLinesResponse]:
        """The chain's lines from an index on, as of now; first the marker, if some of them are archived."""
        index, marker = max(0, request.from_index), self._log.marker
        if index < marker.first:
            index = marker.first
            yield pb.StreamLinesResponse(marker=marker.pack())
        lines = self._log.read(index)
        with contextlib.suppress(Archived):  # since the call began: the peer asks again later
            while chunk := await asyncio.to_thread(_some, lines):
                yield pb.StreamLinesResponse(lines=chunk)


def _some(lines: Iterator[bytes]) -> list[bytes]:
    return list(islice(lines, _CHUNK))


class PeerHistory:
    """Copies history from whichever peer has it; `channels` opens one channel to each live peer."""

    def __init__(self, channels: Callable[[], Awaitable[Sequence[grpc.aio.Channel]]]) -> None:
        self._channels = channels

    async def __call__(self, log: Segments, keys: Keys, mark: Position) -> None:
        """Append verified entries up to `mark.size`. Raises Unavailable when no peer's history reaches it."""
        channels = await self._channels()
        for channel, may_adopt in [*((one, False) for one in channels), *((one, True) for one in channels)]:
            try:
                await self._copy(channel, log, keys, mark, may_adopt=may_adopt)
            except (grpc.aio.AioRpcError, Tampered, MissingKey, Archived) as error:
                _log.error("a peer's audit history is of no use", why=type(error).__name__)
            if log.size >= mark.size:
                return
        raise Unavailable("no audit replica gave the history up to the mark")

    async def markers(self) -> list[bytes | None]:
        """Markers of the peers that have entries: b"" if nothing is archived, None without an answer."""
        channels = await self._channels()
        told = await asyncio.gather(*map(_beginning_of, channels))
        return [beginning for answer in told for beginning in answer]

    async def _copy(
        self, channel: grpc.aio.Channel, log: Segments, keys: Keys, mark: Position, *, may_adopt: bool
    ) -> None:
        verifier = Verifier(keys, log.size, log.head, log.term_at(log.size))
        request = pb.StreamLinesRequest(from_index=log.size)
        call = pb_grpc.AuditPeerServiceStub(channel).StreamLines(request, timeout=_TIMEOUT)
        async for message in call:
            if message.marker:
                marker = _checked(message.marker, log.size, keys, mark)
                if not may_adopt:
                    call.cancel()
                    raise Archived(marker.first)
                await asyncio.shield(asyncio.to_thread(adopt, log, marker))
                verifier = Verifier(keys, marker.first, marker.prev_hmac, marker.term)
            entries = _verified(verifier, message.lines, mark)
            await asyncio.shield(asyncio.to_thread(log.append, entries))
            if log.size >= mark.size:
                call.cancel()
                return


async def _beginning_of(channel: grpc.aio.Channel) -> list[bytes | None]:
    request = pb.StreamLinesRequest(from_index=0)
    call = pb_grpc.AuditPeerServiceStub(channel).StreamLines(request, timeout=_SOON)
    try:
        message = await call.read()
    except grpc.aio.AioRpcError as error:
        _log.warning("a peer does not say where its audit log begins", why=error.code().name)
        return [None]
    finally:
        call.cancel()
    # A peer without entries ends the stream at once.
    return [bytes(message.marker)] if isinstance(message, pb.StreamLinesResponse) else []


def _checked(text: bytes, size: int, keys: Keys, mark: Position) -> Marker:
    """A peer's marker, which must be beyond `size` but not beyond the mark. Raises Tampered, MissingKey."""
    try:
        marker = parse(text)
    except ValueError as error:
        raise Tampered(size, str(error)) from None
    if not size < marker.first <= mark.size or not marker.is_ours(keys):
        raise Tampered(size, "the marker is not one of this chain's")
    return marker


def _verified(verifier: Verifier, lines: Sequence[bytes], mark: Position) -> list[Entry]:
    """The lines up to the mark as entries; raises Tampered."""
    entries = [verifier.check(line) for line in lines[: mark.size - verifier.size]]
    if entries and verifier.size == mark.size and verifier.head != mark.hmac:
        raise Tampered(mark.size - 1, "the history does not lead to the mark")
    return entries
