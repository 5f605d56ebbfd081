"""The keeper of etcd's room: says how full etcd is, and makes room without an operator's help.

* One replica at a time measures every second and puts what it found into `cluster/room`, where every process
  gets it from (`admission`). The others only watch the key change; when it has not changed for `TAKE_OVER`
  another measures. It needs no election and no fence: two keepers at once harm nothing, since they compare
  the key's revision, and take turns at defragmenting.
* A keeper that does not reach every member while the alarm stands leaves the measuring to the others for
  `YIELD`: the member that it does not reach may be the one without room. Once in two `YIELD` at most.
* The key is put inside a nested transaction, which etcd takes even when its alarm is raised.
* When more than `LOW` is in use, history is compacted to a revision seen a few seconds ago (a request that
  looks up its lost answer needs it no longer). What the file has grown by beyond what is in use is given back
  by defragmenting, and the alarm is switched off when it helped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog

from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, MemberStatus
from strongbox.store.etcd.errors import EtcdError
from strongbox.store.etcd.txn import TxnRequest, TxnResponse
from strongbox.store.space.admission import Limit, Room
from strongbox.store.space.defragment import Busy, Defragmenter

PERIOD = 1.0  # seconds between two looks
TAKE_OVER = 4.0  # seconds without a measurement after which another replica measures
LOW = 0.6  # of the quota in use: below it history may stay
LARGE = 0.8  # of the quota: a file larger than this gives back what is free in it
SLACK = 0.1  # of the quota: less than this is not worth a defragmentation
ENOUGH = 0.97  # of the quota: below it the alarm is switched off, since what frees some fits
LOOK_BACK = 10.0  # seconds of history that stay
LOOK_BACK_TIGHT = 3.0  # when what is neutral would soon be refused
TIGHT = Limit(0.78, 0.89)  # "soon": between the limits of what grows and of what is neutral
COMPACT_EVERY = 2.0  # seconds
SPACING = 20.0  # seconds between two defragmentations
SPACING_FULL = 5.0  # while the alarm is raised
YIELD = 15.0  # seconds for which others may try, who may reach more members
SILENT = 10.0  # seconds in which no member tells its status before that is trouble
UNMEASURED = "how full etcd is cannot be measured: no member tells its status"
_log = structlog.get_logger(__name__)


class Upkeep(Protocol):
    """What is asked of etcd (strongbox.store.etcd.client.Etcd)."""

    async def get(self, key: bytes) -> KV | None:
        """The newest value."""

    async def transact(self, request: TxnRequest, *, idempotent: bool = False) -> TxnResponse:
        """Commit."""

    async def status(self, endpoint: str) -> MemberStatus:
        """What one member says of itself."""

    async def is_full(self) -> bool:
        """Whether the alarm is raised."""

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`."""

    async def disarm(self) -> int:
        """Switch the alarm off."""


class Measured(NamedTuple):
    """Of the members that answer: the alarm, the largest file and the most in use (bytes), the revision.

    `silent`: how many do not answer.
    """

    full: bool
    file: int
    in_use: int
    revision: int
    silent: int = 0


class Keeper:
    """One per kv replica; `keep` is for ever. `quota` is that of each member, in bytes.

    `on_trouble` is told what is wrong when no member has told its status for `SILENT`, and "" when one does.
    """

    def __init__(
        self,
        etcd: Upkeep,
        members: Sequence[str],
        quota: int,
        node: str,
        defragmenter: Defragmenter,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._etcd, self._members, self._quota, self._node = etcd, tuple(members), quota, node
        self._defragmenter, self._on_trouble = defragmenter, on_trouble
        self._told_at, self._is_silent = time.monotonic(), False  # when a member last told its status
        self._history: deque[tuple[float, int]] = deque(maxlen=64)
        self._moved = (0, float("-inf"))  # revision of the key, and when it was first seen there
        self._before = 0  # revision of the measurement before: etcd's file lags 0.1 s behind
        self._compacted_at = self._defragmented_at = self._yielded_at = float("-inf")
        self._making_room: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Measure, publish it, and make room where there is little."""
        try:
            while True:
                try:
                    measured = await self.look()
                except EtcdError as error:
                    measured = None
                    self._heard(error)
                    _log.info("how much room etcd has is not known", kind=type(error).__name__)
                if measured is not None and (self._making_room is None or self._making_room.done()):
                    self._making_room = asyncio.create_task(self._try(measured), name="making room in etcd")
                await asyncio.sleep(PERIOD)
        finally:
            if self._making_room is not None:
                self._making_room.cancel()

    async def look(self) -> Measured | None:
        """Measure and publish it; None: another replica does, or may try. Raises EtcdError."""
        row = await self._etcd.get(keyspace.ROOM)
        if (row is not None and self._is_kept_by_another(row)) or self._has_yielded():
            self._heard(None)  # another measures, so members do tell their status
            return None
        measured = await self._measure()
        if not measured.file:
            return None
        said = Room(self._before, measured.file, measured.in_use, self._quota, self._node).pack()
        self._before = measured.revision
        seen = row.mod_revision if row is not None else 0
        nested = txn.nested([], [txn.put(keyspace.ROOM, said)])
        request = txn.txn([txn.mod_is(keyspace.ROOM, seen)], [nested])
        await self._etcd.transact(request, idempotent=True)
        return None if self._yields(measured) else measured

    def _yields(self, measured: Measured) -> bool:
        """Whether others may try from now on."""
        now = time.monotonic()
        if not (measured.full and measured.silent) or now - self._yielded_at < 2 * YIELD:
            return False
        self._yielded_at = now
        _log.warning("etcd is full and a member does not answer here: others may try", silent=measured.silent)
        return True

    def _has_yielded(self) -> bool:
        return time.monotonic() - self._yielded_at < YIELD

    async def make_room(self, measured: Measured) -> Measured:
        """Compact, defragment and switch the alarm off, as far as it is time. Raises EtcdError, Busy."""
        quota, now = self._quota, time.monotonic()
        is_low = measured.full or measured.in_use >= LOW * quota or measured.file >= LARGE * quota
        if not is_low:
            return measured
        if now - self._compacted_at >= COMPACT_EVERY:
            self._compacted_at = now
            await self._etcd.compact(self._old_revision(measured))
            measured = await self._measure()
        worth_it = measured.file >= LARGE * quota and measured.file - measured.in_use >= SLACK * quota
        spacing = SPACING_FULL if measured.full else SPACING
        if (measured.full or worth_it) and now - self._defragmented_at >= spacing:
            self._defragmented_at = now
            _log.warning("etcd's space is nearly used up: its members are defragmented", **measured._asdict())
            await self._defragmenter.run()
            measured = await self._measure()
        if measured.full and measured.file < ENOUGH * quota:
            await self._etcd.disarm()
            _log.warning("etcd takes writes again", bytes=measured.file)
            measured = await self._measure()
        return measured

    async def _try(self, measured: Measured) -> None:
        try:
            await self.make_room(measured)
        except (EtcdError, Busy) as error:
            _log.info("making room in etcd waits", why=str(error))

    def _is_kept_by_another(self, row: KV) -> bool:
        now = time.monotonic()
        if row.mod_revision != self._moved[0]:
            self._moved = row.mod_revision, now
        mine = Room.parse(row.key, row.value).keeper == self._node
        return not mine and now - self._moved[1] < TAKE_OVER

    async def _measure(self) -> Measured:
        full = await self._etcd.is_full()
        found: list[MemberStatus] = []
        failure: EtcdError | None = None
        for member in self._members:
            try:
                found.append(await self._etcd.status(member))
            except EtcdError as error:
                failure = error  # it is down; its file does not grow
        self._heard(None if found else failure)
        revision = max((one.revision for one in found), default=0)
        now = time.monotonic()
        if found and (not self._history or now - self._history[-1][0] >= PERIOD):
            self._history.append((now, revision))
        file, in_use = (max(sizes, default=0) for sizes in _sizes(found))
        return Measured(full, file, in_use, revision, len(self._members) - len(found))

    def _heard(self, failure: EtcdError | None) -> None:
        """A member told its status, or (`failure`) none did."""
        now = time.monotonic()
        if failure is None:
            self._told_at = now
        is_silent = now - self._told_at >= SILENT
        if is_silent == self._is_silent:
            return
        self._is_silent = is_silent
        if failure is not None:
            _log.error(UNMEASURED, kind=type(failure).__name__)
        self._on_trouble(UNMEASURED if is_silent else "")

    def _old_revision(self, measured: Measured) -> int:
        """The newest one that was seen long enough ago; without one, the oldest seen."""
        is_tight = measured.full or measured.in_use >= TIGHT.in_use * self._quota
        is_tight = is_tight or measured.file >= TIGHT.file * self._quota
        before = time.monotonic() - (LOOK_BACK_TIGHT if is_tight else LOOK_BACK)
        old = [revision for moment, revision in self._history if moment <= before]
        return old[-1] if old else self._history[0][1]


def _sizes(found: Sequence[MemberStatus]) -> tuple[list[int], list[int]]:
    return [one.db_size for one in found], [one.in_use for one in found]
