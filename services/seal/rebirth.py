"""Replacing the process after a wipe: the one way to be rid of what Python, protobuf and OpenSSL copied.

The process is executed anew in place (same pid, same port, nothing of its memory; `Runtime.restart`), and
hardens itself again before anything else. Answers under way leave first, within bounds. The key streams of
other services never end by themselves, so they are ended: nothing can be asked of them any more but whether
it is sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import structlog

_ANSWERS_WITHIN = 5.0  # seconds for calls under way
_FLUSH = 0.1  # seconds for an answer that was returned to leave the process
_log = structlog.get_logger(__name__)


class Rebirth:
    """`restart` begins the replacement and returns."""

    def __init__(self, restart: Callable[[], None]) -> None:
        self._restart = restart
        self._answers = 0
        self._streams: set[asyncio.Task[object]] = set()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """A call that must be answered before the process goes."""
        self._answers += 1
        try:
            yield
        finally:
            self._answers -= 1

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """A call that is ended when the process goes."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            yield
        finally:
            self._streams.discard(task)

    async def now(self) -> None:
        """Replace this process as soon as what must be answered is."""
        end = time.monotonic() + _ANSWERS_WITHIN
        while self._answers and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await asyncio.sleep(_FLUSH)
        for stream in self._streams:
            stream.cancel()
        _log.warning("the process is replaced, so that nothing of the keys is left in it")
        self._restart()
