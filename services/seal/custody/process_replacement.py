"""Replacing the process after a wipe: the only way to remove copies that Python, protobuf and OpenSSL made.

The process executes itself again (same pid and port, nothing of its memory; `Runtime.restart`), and hardens
itself before anything else. Rules:
* The keys are wiped and the sealing is confirmed before; only copies are left, so this can wait a little.
* Replicas go one after the other, by ordinal: a new process needs a second or more until it answers, and
  meanwhile the others must keep the shares they hold and take part in unsealing. Until its turn this replica
  answers as sealed.
* For those two seconds or so nobody listens (gRPC cannot be handed a listening socket). The gateway asks its
  own node's replica, and no other, for health, ready and seal status; it asks again for about a second, so
  that a call at the beginning of that time may still get a 503, `UNAVAILABLE`.
* If keys are held again by then, the process is not replaced: the same copies would come back at once.
* Answers under way are sent first, for up to 5 s. The key streams of other services never end by themselves,
  so they are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import structlog

from services.seal.custody.held_keys import Custody

FIRST_AFTER = 3.0  # seconds from the wipe to the first replica's turn
TURN = 2.0  # seconds for each replica
REPLICAS = 3  # turns; further replicas share them
_ANSWERS_WITHIN = 5.0  # seconds for calls under way
_FLUSH = 0.1  # seconds for an answer that was returned to leave the process
_log = structlog.get_logger(__name__)


class Rebirth:
    """Replaces the process. `restart` begins that and returns."""

    def __init__(self, custody: Custody, ordinal: str, restart: Callable[[], None]) -> None:
        self._custody, self._restart = custody, restart
        self._wait = FIRST_AFTER + TURN * (int(ordinal) % REPLICAS)
        self._answers = 0
        self._streams: set[asyncio.Task[object]] = set()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """A context for a call that must be answered before the process is replaced."""
        self._answers += 1
        try:
            yield
        finally:
            self._answers -= 1

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """A context for a call that is cancelled when the process is replaced."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            yield
        finally:
            self._streams.discard(task)

    async def when_its_turn_comes(self) -> None:
        """Replace this process, unless it holds keys again by then."""
        await asyncio.sleep(self._wait)
        end = time.monotonic() + _ANSWERS_WITHIN
        while self._answers and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await asyncio.sleep(_FLUSH)
        if not self._custody.wiped.is_set():
            return
        for stream in self._streams:
            stream.cancel()
        _log.warning("the process is replaced, so that nothing of the keys is left in it")
        self._restart()
        # Nothing is left to do here; stopping cancels this task.
        await asyncio.Event().wait()
