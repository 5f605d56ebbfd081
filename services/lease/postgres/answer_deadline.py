"""How long this thread waits for a server's answers: a deadline that holds even when the server is frozen.

psycopg2 waits in C, where nothing interrupts it; statement_timeout is kept by the server, and a frozen
server does not keep it. So waiting is done here: psycopg2 calls `_wait` whenever it would block, while it
connects too, and this thread's deadline ends it.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extensions

from services.lease.postgres.errors import DeadlinePassed

LONGEST = 30.0  # seconds
_mine = threading.local()


@contextlib.contextmanager
def deadline(at: float) -> Iterator[None]:
    """End everything that this thread asks of a server at `at` (monotonic seconds)."""
    _mine.deadline = at
    try:
        yield
    finally:
        del _mine.deadline


def time_left() -> float:
    """Seconds until this thread's deadline, or `LONGEST` when it has none."""
    return float(getattr(_mine, "deadline", time.monotonic() + LONGEST)) - time.monotonic()


def _wait(connection: Any) -> None:
    # psycopg2 has one such callback for a whole process: it also serves connections without a deadline.
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        left = time_left()
        if left <= 0:
            raise DeadlinePassed
        # Not select(), which knows no file above 1023: a process with many connections has those.
        waiting = select.poll()
        reads = state == psycopg2.extensions.POLL_READ
        waiting.register(connection.fileno(), select.POLLIN if reads else select.POLLOUT)
        waiting.poll(max(1, round(left * 1000)))


psycopg2.extensions.set_wait_callback(_wait)
