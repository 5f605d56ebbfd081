"""Trying again what collided with somebody else's change, a few times and briefly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from services.lease.postgres.failures import Rejected
from services.lease.postgres.session import time_left

T = TypeVar("T")
TRIES = 5
PAUSE = 0.02  # seconds, doubled each time


def soon(work: Callable[[], T]) -> T:
    """What `work` returns; it is tried again while PostgreSQL says that others were in the way."""
    for number in range(TRIES):
        try:
            return work()
        except Rejected as error:
            pause = PAUSE * 2**number
            if not error.is_transient or number == TRIES - 1 or time_left() < 2 * pause:
                raise
        time.sleep(pause)
    raise AssertionError("unreachable")
