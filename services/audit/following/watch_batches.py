"""Grouping a watch's batches into lots: chaining costs a thread, an fsync and a wake-up each time.

What comes within `WITHIN` is chained together. No operation waits for that: it is durable in the outbox
before it is answered. Only a call that reads the log waits; while one does (`Hurry`), nothing is held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

T = TypeVar("T")
WITHIN = 0.05  # seconds; at one request at a time this is a quarter of all replicas' work
MOST = 1000  # items that may wait; beyond that the source is not read


class Hurry:
    """Whether anybody waits for the chain; who waits enters it as a context manager."""

    def __init__(self) -> None:
        self._waiting = 0
        self._event = asyncio.Event()

    def __enter__(self) -> None:
        self._waiting += 1
        self._event.set()

    def __exit__(self, *_: object) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._event.clear()

    async def pause(self, seconds: float) -> None:
        """Sleep, but no longer while somebody waits."""
        if self._event.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return


async def gathered(source: AsyncIterator[T], hurry: Hurry) -> AsyncGenerator[list[T], None]:
    """The items of `source` in order, in lots; what it raises is raised after its last item."""
    queue: asyncio.Queue[T] = asyncio.Queue(MOST)

    async def read() -> None:
        async for item in source:
            await queue.put(item)

    reader = asyncio.create_task(read(), name="gathering")
    try:
        while not (reader.done() and queue.empty()):
            first = await _next(queue, reader)
            if first is None:
                continue
            await hurry.pause(WITHIN)
            yield [first, *_rest(queue)]
        reader.result()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _next(queue: asyncio.Queue[T], reader: asyncio.Task[None]) -> T | None:
    """The next item; None when the source ends first."""
    if not queue.empty():
        return queue.get_nowait()
    getter = asyncio.ensure_future(queue.get())
    try:
        await asyncio.wait({getter, reader}, return_when=asyncio.FIRST_COMPLETED)
        return getter.result() if getter.done() else None
    finally:
        getter.cancel()


def _rest(queue: asyncio.Queue[T]) -> list[T]:
    return [queue.get_nowait() for _ in range(queue.qsize())]
