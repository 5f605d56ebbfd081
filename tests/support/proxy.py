"""A TCP proxy that stands between a client and a server and misbehaves on request.

The kernel of a plain machine cannot add latency or lose packets selectively, so it is done here:
* what goes to the server arrives `delay` seconds later (a long way, not a narrow one);
* `hold()` keeps bytes back in one or both directions until `release()` (a vanished peer: nothing is closed,
  nothing is answered, and after healing TCP delivers everything, late);
* `cut()` resets every connection; with `refuse=True` new ones are refused until `accept()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16
_MOST_UNDER_WAY = 1024  # chunks


class TcpProxy:
    """Forwards `listen` (a free port when it is 0) to `target` ("host:port"). An async context manager."""

    def __init__(self, target: str, listen: str = "127.0.0.1:0") -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._host, own = listen.rsplit(":", 1)
        self._port = int(own)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self.delay = 0.0
        self.held = asyncio.Event()  # set once bytes to the server are being kept back
        self.release()

    @property
    def endpoint(self) -> str:
        """host:port to dial."""
        return f"{self._host}:{self._port}"

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Keep back what goes to the server (`up`), what comes from it (`down`), or both."""
        self.held.clear()
        if up:
            self._up.clear()
        if down:
            self._down.clear()

    def release(self) -> None:
        """Deliver what was kept back and forward again."""
        self._up.set()
        self._down.set()

    async def cut(self, *, refuse: bool = False) -> None:
        """Reset every connection; with `refuse`, also stop listening."""
        if refuse and self._server:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def accept(self) -> None:
        """Listen (again), on the same port."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port)
        self._port = int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut(refuse=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._link(reader, writer)
        finally:
            self._links.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers.add(far_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, up=True)),
            asyncio.create_task(self._pump(far_reader, writer, up=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(far_writer)
            far_writer.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_UNDER_WAY)
        delivery = asyncio.create_task(self._deliver(under_way, writer, up=up))
        try:
            while data := await reader.read(_CHUNK):
                due = time.monotonic() + (self.delay if up else 0.0)
                await under_way.put((due, data))
            await under_way.put((0.0, b""))
            await delivery
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    async def _deliver(
        self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        """In order, each when it is due; nothing while the way is held. Nothing (b"") is the end."""
        gate = self._up if up else self._down
        while (chunk := await under_way.get())[1]:
            if up and not gate.is_set():
                self.held.set()
            await gate.wait()
            await asyncio.sleep(max(0.0, chunk[0] - time.monotonic()))
            writer.write(chunk[1])
            await writer.drain()
