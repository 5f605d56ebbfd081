"""Channels to etcd's members, and which of them to use.

* One channel per member, so that each certificate is checked against the address dialled.
* Sticky: the same member as long as it answers. A member that times out, is unavailable or has no leader is
  left for the next one and not chosen again before its back-off ends (doubling; a healed former leader was
  seen to hang for 9–15 s). If all are in back-off, the one whose back-off ends first is tried: no call fails
  without a member having been asked.
* `hasleader` on every call: a member in a minority then refuses at once and cancels its watches.
* Pings every 2 s while a call or a watch is open find a silent peer in about 3 s. `keepalive_timeout` alone
  is only a TCP user timeout: a frozen process, whose kernel still acknowledges, is found by `ping_timeout`
  (60 s when unset). No pings without calls: etcd answers those with GOAWAY too_many_pings whatever its
  settings. It must be started with `--grpc-keepalive-min-time` of 1 s or less.
* A renewed certificate needs new channels. Calls in flight end on the old ones; streams are cancelled, and
  their readers open them again.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from strongbox.tls import Identity

METADATA = (("hasleader", "true"),)
_FAREWELL = 35.0  # seconds until an old channel is closed: no call has more than 30
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # A member comes back with another address behind its name (as in strongbox.rpc.channel).
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM of the cluster's authority and of this process's certificate and private key."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, identity: Identity) -> Tls:
        """The material in use now; raises OSError."""
        now = identity.current()
        return cls(now.authority, now.certificate, now.key)

    @classmethod
    def read(cls, authority: Path, certificate: Path, key: Path) -> Tls:
        """Read the three files; raises OSError."""
        return cls(authority.read_bytes(), certificate.read_bytes(), key.read_bytes())

    def credentials(self) -> grpc.ChannelCredentials:
        """Mutual TLS credentials for a channel."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


@dataclass(frozen=True, slots=True)
class Options:
    """Times in seconds: one attempt; a call whose caller names no deadline.

    Back-off of a bad member, least and most.
    """

    attempt: float = 0.4
    total: float = 2.0
    back_off: float = 1.0
    back_off_most: float = 15.0


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


class Endpoint:
    """One member: its channel, and until when it is avoided."""

    def __init__(self, address: str, tls: Tls | None, options: Options) -> None:
        self.address = address
        self.channel = _open(address, tls)
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self.bad_until = 0.0
        self._failed_at = 0.0
        self._back_off = 0.0
        self._options = options
        self._calls: dict[str, Any] = {}

    def unary(self, path: str, answer: Any) -> Any:
        """The multi-callable of a unary RPC (made once), answering messages of type `answer`."""
        if path not in self._calls:
            self._calls[path] = self.channel.unary_unary(
                path, request_serializer=_serialize, response_deserializer=answer.FromString
            )
        return self._calls[path]

    def stream(self, path: str, answer: Any) -> Any:
        """The multi-callable of a two-way stream, answering messages of type `answer`."""
        if path not in self._calls:
            self._calls[path] = self.channel.stream_stream(
                path, request_serializer=_serialize, response_deserializer=answer.FromString
            )
        return self._calls[path]

    def lasting_stream(self, path: str, answer: Any) -> Any:
        """An open two-way stream that is cancelled when the certificate is renewed.

        Its reader then gets a CancelledError although nobody cancelled its task.
        """
        call = self.stream(path, answer)(metadata=METADATA)
        self._streams.add(call)
        return call

    def renew(self, tls: Tls) -> Any:
        """Use a new channel from now on; returns the old one, to be closed when its calls have ended."""
        old, self.channel = self.channel, _open(self.address, tls)
        self._calls = {}
        streams, self._streams = self._streams, weakref.WeakSet()
        for stream in streams:
            stream.cancel()
        return old

    def failed(self, started: float) -> None:
        """A call begun at `started` failed; calls in flight together count as one failure."""
        if started < self._failed_at:
            return
        least, most = self._options.back_off, self._options.back_off_most
        self._failed_at = time.monotonic()
        self._back_off = min(most, max(least, self._back_off * 2))
        self.bad_until = self._failed_at + self._back_off

    def worked(self, started: float) -> None:
        """A call begun at `started` was answered; an answer to an older question proves nothing."""
        if started >= self._failed_at:
            self._back_off = self.bad_until = 0.0


def _open(address: str, tls: Tls | None) -> Any:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(address, tls.credentials(), options=CHANNEL_OPTIONS)


class Ring:
    """The members in order, and the one in use."""

    def __init__(self, addresses: Sequence[str], tls: Tls | None, options: Options) -> None:
        if not addresses:
            raise ValueError("no etcd endpoints")
        self.members = tuple(Endpoint(address, tls, options) for address in addresses)
        self._current = 0
        self._leaving: set[asyncio.Task[None]] = set()

    def renew(self, tls: Tls) -> None:
        """Use new channels, with this certificate, from now on."""
        for member in self.members:
            task = asyncio.create_task(_close_late(member.renew(tls)))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def pick(self) -> Endpoint:
        """The member to ask now."""
        now, count = time.monotonic(), len(self.members)
        order = [(self._current + step) % count for step in range(count)]
        chosen = next((i for i in order if self.members[i].bad_until <= now), None)
        if chosen is None:
            chosen = min(order, key=lambda i: self.members[i].bad_until)
        self._current = chosen
        return self.members[chosen]

    def leave(self, endpoint: Endpoint, started: float) -> None:
        """Avoid `endpoint`, which failed a call begun at `started`."""
        endpoint.failed(started)
        if self.members[self._current] is endpoint:
            self._current = (self._current + 1) % len(self.members)

    def named(self, address: str) -> Endpoint:
        """The member at `address`; raises KeyError."""
        return {member.address: member for member in self.members}[address]

    async def close(self) -> None:
        """Close every channel, cancelling what is in flight."""
        for leaving in self._leaving:
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for member in self.members:
            await member.channel.close(None)


async def _close_late(channel: Any) -> None:
    try:
        await asyncio.sleep(_FAREWELL)
    finally:
        await channel.close(None)
