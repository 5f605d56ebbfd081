"""Room in etcd: writes are refused before it is used up, and it is won back when it was, with nobody's help.

* Each replica looks every few seconds how large the members' files are. From 70 % of the quota on, or when
  etcd itself raises the alarm, writes of secrets are refused (`OVERLOADED`, with the reason); reads and
  everything that makes room go on as long as etcd takes their audit records.
* Then history is compacted to a revision seen 10 s ago (a request that looks up its lost answer needs it no
  longer), one member after the other is defragmented, and the alarm is switched off if it helped.
* No duty and no fence: with the alarm raised nobody could be elected, for etcd takes no put. Compacting and
  defragmenting twice harm nothing; so that replicas do not do it all at once each waits for a moment that it
  draws and looks again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import structlog

from strongbox.errors import Overloaded
from strongbox.store.client import MemberStatus
from strongbox.store.errors import EtcdError

LOW = 0.7  # of the quota
ENOUGH = 0.95  # of the quota: below it everything but writes of secrets goes on after an alarm
PERIOD = 3.0  # seconds between two looks
SPREAD = 3.0  # seconds within which a replica draws its moment
SPACING = 60.0  # seconds between two tries that were of no avail
LOOK_BACK = 10.0  # seconds of history that stay
DEFRAGMENT = 20.0  # seconds for one member
_log = structlog.get_logger(__name__)


class Upkeep(Protocol):
    """What is asked of etcd (strongbox.store.client.Etcd)."""

    async def status(self, endpoint: str) -> MemberStatus:
        """What one member says of itself."""

    async def is_full(self) -> bool:
        """Whether the alarm is raised."""

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`."""

    async def defragment(self, endpoint: str, *, timeout: float) -> None:
        """Give one member's free pages back; `timeout` in seconds."""

    async def disarm(self) -> int:
        """Switch the alarm off."""


class Room:
    """One per replica; `keep` is for ever. `quota` is that of each member, in bytes."""

    def __init__(self, etcd: Upkeep, members: Sequence[str], quota: int) -> None:
        self._etcd, self._members, self._quota = etcd, tuple(members), quota
        self._seen: deque[tuple[float, int]] = deque(maxlen=64)
        self._tried_at = float("-inf")
        self.is_low = False

    def require(self) -> None:
        """Raise `Overloaded` when nothing should be written."""
        if self.is_low:
            raise Overloaded("etcd's space is nearly used up: no secret is written until there is room again")

    async def keep(self) -> None:
        """Look, and make room where there is little."""
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self.look()
            except EtcdError as error:
                _log.info("how much room etcd has is not known", kind=type(error).__name__)

    async def look(self) -> None:
        """Once. Raises EtcdError."""
        full, _ = await self._measure()
        if not self.is_low or (not full and time.monotonic() - self._tried_at < SPACING):
            return
        await asyncio.sleep(random.uniform(0.0, SPREAD))  # noqa: S311  a moment, not a secret
        full, _ = await self._measure()
        if self.is_low:
            self._tried_at = time.monotonic()
            await self._win_back(full=full)

    async def _measure(self) -> tuple[bool, int]:
        """Learn whether room is low: whether etcd's alarm is raised, and the largest member's bytes."""
        full, largest = await self._etcd.is_full(), 0
        for member in self._members:
            try:
                status = await self._etcd.status(member)
            except EtcdError:
                continue  # it is down; its file does not grow
            largest = max(largest, status.db_size)
            self._note(status.revision)
        self.is_low = full or largest >= LOW * self._quota
        return full, largest

    async def _win_back(self, *, full: bool) -> None:
        _log.warning("etcd's space is nearly used up: history is compacted", alarm=full)
        await self._etcd.compact(self._old_revision())
        for member in self._members:
            try:
                await self._etcd.defragment(member, timeout=DEFRAGMENT)
            except EtcdError as error:
                _log.warning("a member was not defragmented", member=member, why=str(error))
        full, largest = await self._measure()
        if full and largest < ENOUGH * self._quota:
            await self._etcd.disarm()
            _log.warning("there is room in etcd again", bytes=largest)
            await self._measure()

    def _note(self, revision: int) -> None:
        now = time.monotonic()
        if not self._seen or now - self._seen[-1][0] >= 1.0:
            self._seen.append((now, revision))

    def _old_revision(self) -> int:
        """The newest one that was seen `LOOK_BACK` ago; without one, the oldest seen."""
        before = time.monotonic() - LOOK_BACK
        old = [revision for moment, revision in self._seen if moment <= before]
        return old[-1] if old else self._seen[0][1]
