"""Asks as one what several callers ask within one tick of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")
MOST = 1024  # questions in one request: about 150 KB of wrapped keys


class Batching(Generic[A, B]):
    """`ask_all(items)` answers each item, in order, or fails for all of them."""

    def __init__(self, ask_all: Callable[[Sequence[A]], Awaitable[list[B]]]) -> None:
        self._ask_all = ask_all
        self._waiting: list[tuple[Sequence[A], asyncio.Future[list[B]]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, items: Sequence[A]) -> list[B]:
        """The answers to `items`; raises what `ask_all` raises. Without items nothing is asked."""
        return await self.soon(items) if items else []

    def soon(self, items: Sequence[A]) -> asyncio.Future[list[B]]:
        """Ask now, wait later: a future is a fifth of the cost of a task. Cancelling it is harmless."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[B]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((items, answer))
        return answer

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        batch: list[tuple[Sequence[A], asyncio.Future[list[B]]]] = []
        size = 0
        for one in waiting:
            if batch and size + len(one[0]) > MOST:
                self._send(batch)
                batch, size = [], 0
            batch.append(one)
            size += len(one[0])
        self._send(batch)

    def _send(self, batch: list[tuple[Sequence[A], asyncio.Future[list[B]]]]) -> None:
        # In a task of its own: a caller that is cancelled must not cancel the answers of the others.
        task = asyncio.create_task(self._answer(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, batch: list[tuple[Sequence[A], asyncio.Future[list[B]]]]) -> None:
        items = [item for some, _ in batch for item in some]
        try:
            answers = await self._ask_all(items)
        except Exception as error:  # noqa: BLE001  everybody who asked is told
            for _, waiting in batch:
                if not waiting.done():  # without its frames: they hold the answers, and what was asked
                    waiting.set_exception(error.with_traceback(None))
            return
        start = 0
        for some, waiting in batch:
            if not waiting.done():
                waiting.set_result(answers[start : start + len(some)])
            start += len(some)
