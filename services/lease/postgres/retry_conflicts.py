"""Trying again after a collision with somebody else's change, a few times and briefly."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from services.lease.postgres.answer_deadline import time_left
from services.lease.postgres.errors import Rejected

T = TypeVar("T")
TRIES = 7
PAUSE, LONGEST = 0.02, 0.1  # seconds, doubled each time up to the longest


def soon(work: Callable[[], T]) -> T:
    """What `work` returns; it is tried again while PostgreSQL says that others were in the way.

    Not after a lock timeout: the lock was waited for.
    """
    for number in range(TRIES):
        try:
            return work()
        except Rejected as error:
            # A random time up to twice as long: otherwise those that collided once would collide again.
            pause = min(PAUSE * 2**number, LONGEST) * (1 + secrets.randbelow(100) / 100)
            again = error.is_transient and not error.is_locked
            if not again or number == TRIES - 1 or time_left() < 2 * pause:
                raise
        time.sleep(pause)
    raise AssertionError("unreachable")
