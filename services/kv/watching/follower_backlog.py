"""The changes that wait for one follower of the feed, and how many may.

At most `MOST_WAITING` wait; who is further behind is told `Behind`. So a client that does not read costs no
memory. The changes themselves are shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy

from services.kv.watching.changes import Change

MOST_WAITING = 1024  # changes


class Behind(Exception):
    """More has happened than waits for a follower: he has to list again."""


class Follower:
    """The changes that wait for one who follows; those below `position` he has, or does not want."""

    def __init__(self, prefix: str, position: int) -> None:
        self.prefix, self.position = prefix, position
        self._waiting: list[Change] = []
        self._failure: Exception | None = None
        self._woken = asyncio.Event()

    def of(self, changes: Sequence[Change]) -> list[Change]:
        """Those of these that concern him."""
        return [one for one in changes if one.revision >= self.position and one.path.startswith(self.prefix)]

    def offer(self, changes: Sequence[Change]) -> None:
        """Have them wait for him; beyond what may wait he is behind."""
        mine = self.of(changes)
        if not mine or self._failure is not None:
            return
        if len(self._waiting) + len(mine) > MOST_WAITING:
            self.fail(Behind())
            return
        self._waiting += mine
        self._woken.set()

    def fail(self, failure: Exception) -> None:
        """He is told no more."""
        self._waiting, self._failure = [], failure
        self._woken.set()

    async def take(self) -> list[Change]:
        """What waits, as soon as something does; less what he has had. Raises what he failed by."""
        await self._woken.wait()
        if self._failure is not None:
            raise copy(self._failure)  # what is raised holds this frame, and so him who has the original
        self._woken.clear()
        taken, self._waiting = self._waiting, []
        return self.of(taken)
