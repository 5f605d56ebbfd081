"""The changes that wait for one follower of the feed, and how many may.

At most `MOST_WAITING` changes wait for a follower; beyond that it is `Behind`. So a client that does not read
costs little memory. The changes themselves are shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy

from services.kv.watching.changes import Change

MOST_WAITING = 1024  # changes


class Behind(Exception):
    """More changes came than may wait for a follower: it has to list again."""


class Follower:
    """The changes that wait for one follower; those of revisions below `position` are not for it."""

    def __init__(self, prefix: str, position: int) -> None:
        self.prefix, self.position = prefix, position
        self._waiting: list[Change] = []
        self._failure: Exception | None = None
        self._woken = asyncio.Event()

    def of(self, changes: Sequence[Change]) -> list[Change]:
        """Those of these changes that are for this follower."""
        return [one for one in changes if one.revision >= self.position and one.path.startswith(self.prefix)]

    def offer(self, changes: Sequence[Change]) -> None:
        """Add changes to those that wait; beyond `MOST_WAITING` the follower fails with `Behind`."""
        mine = self.of(changes)
        if not mine or self._failure is not None:
            return
        if len(self._waiting) + len(mine) > MOST_WAITING:
            self.fail(Behind())
            return
        self._waiting += mine
        self._woken.set()

    def fail(self, failure: Exception) -> None:
        """Drop what waits; `take` raises `failure` from now on."""
        self._waiting, self._failure = [], failure
        self._woken.set()

    async def take(self) -> list[Change]:
        """Wait for changes and take them, without those below `position`. Raises what `fail` was given."""
        await self._woken.wait()
        if self._failure is not None:
            raise copy(self._failure)  # what is raised holds this frame, and so him who has the original
        self._woken.clear()
        taken, self._waiting = self._waiting, []
        return self.of(taken)
