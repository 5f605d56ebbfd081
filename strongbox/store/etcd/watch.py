"""A watch that loses nothing and repeats nothing.

The resume rule (that of etcd's own Go client; another one lost 4,000 of 5,000 events):
* `created` sets the position only if the caller asked for no start: then header.revision + 1;
* events move it to the last event's mod_revision + 1, since a header's revision is the *store's* revision
  and may be far ahead of an unsynced watcher; events below the position (already seen) are dropped;
* a progress notification does not move it (etcd before 3.5.8 could send one ahead of events);
* any broken, cancelled or ended stream is opened again at the position, on another member (one that was ended
  for a renewed certificate on the same);
* `Compacted` is raised: the caller lists again and watches from that list's revision + 1. So it is when what
  has to be caught up with does not fit one message.

All events of one revision arrive in one batch: etcd splits its catch-up batches between revisions, and
fragments a response only for watchers that asked for fragments, which we never do. Resuming after the last
mod_revision relies on it. A silent peer is found by the channel's pings (3 s), a member without a leader
by `hasleader`.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import InvalidStateError  # gRPC's way of saying that a call has ended
from collections.abc import AsyncGenerator
from enum import Enum
from typing import Any, NamedTuple

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2 as pb

from strongbox.store.etcd import attempts
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.endpoints import Endpoint
from strongbox.store.etcd.errors import Compacted, PermissionDenied, Unavailable, classify
from strongbox.tls_failures import told

_CREATE_TIMEOUT = 1.0  # seconds for `created` to arrive before another member is asked
_REOPEN_PAUSE = 0.05  # seconds between streams


class Kind(Enum):
    """What happened to a key."""

    PUT = 0
    DELETE = 1


class Event(NamedTuple):
    """One change; `value` is empty for a deletion."""

    kind: Kind
    key: bytes
    value: bytes
    mod_revision: int


class Batch(NamedTuple):
    """Changes in etcd's order, whole revisions only.

    `revision` is the last one's: everything up to it has been seen.
    """

    events: tuple[Event, ...]
    revision: int


async def watch(
    etcd: Etcd, key: bytes, end: bytes = b"", start_revision: int = 0
) -> AsyncGenerator[Batch, None]:
    """Yield every change of [key, end) from `start_revision` on (0: from now), for ever.

    Raises Compacted when the position is gone, PermissionDenied when etcd's role forbids it.
    Close the generator (`aclosing`) or cancel its task to stop.
    """
    position = start_revision
    while True:
        endpoint, started = etcd.ring.pick(), time.monotonic()
        stream = endpoint.lasting_stream(attempts.WATCH, pb.WatchResponse)
        try:
            async with asyncio.timeout(_CREATE_TIMEOUT):  # wait_for of 3.11 can swallow a cancellation
                await _create(stream, key, end, position)
                reply = await _read(stream)
            position = position or reply.header.revision + 1
            endpoint.worked(started)
            while True:
                reply = await _read(stream)
                batches = [_batch_of(reply, position)]
                del reply  # frees it while the consumer does not ask for more
                if batches[0].events:
                    position = batches[0].revision + 1
                    yield batches.pop()
        except (
            grpc.aio.AioRpcError,
            grpc.aio.UsageError,
            TimeoutError,
            InvalidStateError,
            Unavailable,
        ) as failure:
            _leave(etcd, endpoint, failure)
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
        finally:
            stream.cancel()
        await asyncio.sleep(_REOPEN_PAUSE)


async def _create(stream: Any, key: bytes, end: bytes, position: int) -> None:
    request = pb.WatchCreateRequest(key=key, range_end=end, start_revision=position)
    await stream.write(pb.WatchRequest(create_request=request))


async def _read(stream: Any) -> Any:
    """The next response; raises Compacted, PermissionDenied, or Unavailable when the watch is over."""
    reply = await stream.read()
    if not isinstance(reply, pb.WatchResponse):  # grpc.aio.EOF
        raise Unavailable("etcd ended the watch stream")
    if reply.compact_revision:
        raise Compacted("the watch's start was compacted", reply.compact_revision)
    if reply.canceled:
        refused = "permission denied" in reply.cancel_reason.lower()
        raise (PermissionDenied if refused else Unavailable)(f"watch cancelled: {reply.cancel_reason}")
    return reply


def _is_cancelled() -> bool:
    """Whether this task is to end; otherwise only the stream was cancelled, for a renewed certificate."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _batch_of(reply: Any, position: int) -> Batch:
    """What is new in a response; its revision is that of the last event."""
    events = tuple(_event(item) for item in reply.events if item.kv.mod_revision >= position)
    return Batch(events, events[-1].mod_revision if events else 0)


def _event(item: Any) -> Event:
    return Event(Kind(item.type), item.kv.key, item.kv.value, item.kv.mod_revision)


def _leave(etcd: Etcd, endpoint: Endpoint, failure: Exception) -> None:
    """Leave the member; what no other member would answer differently is raised instead of tried for ever."""
    if isinstance(failure, grpc.aio.UsageError):
        raise Unavailable(f"the client is closed: {failure}") from failure
    if isinstance(failure, grpc.aio.AioRpcError):
        told.tell(endpoint.address, failure.details())
        error = classify(failure.code(), failure.details() or "")
        if isinstance(error, PermissionDenied):
            raise error from None
        if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in str(
            failure.details()
        ):
            # Any member would send the same: what is there now has to be read instead.
            raise Compacted("the changes since then are too large for one message") from None
    etcd.ring.leave(endpoint, time.monotonic())
