"""A closed loop over keep-alive connections: each sends its next request when the answer is complete.

Light on purpose, since it shares the machine with what it measures: requests are encoded before the clock
starts, answers are only measured (status and length), never parsed. About 25 µs of CPU a request.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Address:
        """From `http://host:port`."""
        host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        return cls(host, int(port))


@dataclass(slots=True)
class Measured:
    """One round: requests answered with 200 or 204, others by status, latencies in seconds, wall seconds."""

    seconds: float = 0.0
    latencies: array[float] = field(default_factory=lambda: array("d"))
    failures: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Successful requests per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def quantile(self, part: float) -> float:
        """The latency, in seconds, that `part` of the requests did not exceed; nan without requests."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def encode(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """An HTTP/1.1 request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "host: bench", *(f"{k}: {v}" for k, v in headers.items())]
    if body or method != "GET":
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode("ascii") + _END_OF_HEAD + body


class _Connection(asyncio.Protocol):
    """One connection of the loop."""

    def __init__(self, requests: Iterator[bytes], measured: Measured, until: float) -> None:
        self._requests, self._measured, self._until = requests, measured, until
        self._received, self._sent_at = b"", 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Measure when the answer is complete, then send the next."""
        self._received = self._received + data if self._received else data
        if not _is_complete(self._received):
            return
        now = time.perf_counter()
        status = int(self._received[9:12])
        if status in (200, 204):
            self._measured.latencies.append(now - self._sent_at)
        else:
            self._measured.failures[status] = self._measured.failures.get(status, 0) + 1
        self._received = b""
        self._send() if now < self._until else self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        """Status 0 counts connections that broke under a request."""
        if not self.done.done():
            self._measured.failures[0] = self._measured.failures.get(0, 0) + 1
            self.done.set_result(None)

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))

    def _finish(self) -> None:
        assert self._transport is not None
        if not self.done.done():
            self.done.set_result(None)
        self._transport.close()


def _is_complete(received: bytes) -> bool:
    end = received.find(_END_OF_HEAD)
    if end < 0:
        return False
    head = received[:end].lower()
    at = head.find(b"content-length:")
    if at >= 0:
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        return len(received) >= end + 4 + length
    if b"transfer-encoding: chunked" in head:
        return received.endswith(_LAST_CHUNK)
    return True


async def run(
    addresses: Sequence[Address], requests: Sequence[bytes], connections: int, seconds: float
) -> Measured:
    """Load `addresses` in turn with `connections` for `seconds`; each walks through a shuffle of its own."""
    measured, started = Measured(), time.perf_counter()
    loop, dice = asyncio.get_running_loop(), random.Random(connections)
    opened = []
    for number in range(connections):
        order = itertools.cycle(dice.sample(requests, len(requests)))
        address = addresses[number % len(addresses)]
        connection = _Connection(order, measured, started + seconds)
        await loop.create_connection(lambda it=connection: it, address.host, address.port)  # type: ignore[misc]
        opened.append(connection.done)
    await asyncio.wait_for(asyncio.gather(*opened), seconds + 30)
    measured.seconds = time.perf_counter() - started
    return measured
