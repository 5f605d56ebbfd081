"""What becomes of a batch that etcd did not carry out as sent: its answer is lost, or there is no space.

When an answer is lost, the cursor says whether the batch landed and its outbox records, read at the cursor's
revision, say which parts did; if that revision is compacted the answer is `UnknownOutcome`, never a redo.

When etcd's own alarm says that its space is used up, what frees some and what safety needs goes on: in
batches of their own, in a form that the quota does not count (`FULL` seconds from each such answer on).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from strongbox.errors import Internal, NoQuorum, Overloaded, UnknownOutcome
from strongbox.store.decisions.audit_journal import Journal
from strongbox.store.decisions.batch_txn import Part
from strongbox.store.decisions.deciding import Decider
from strongbox.store.decisions.producer_cursor import Cursor
from strongbox.store.decisions.work import Item
from strongbox.store.etcd import errors
from strongbox.store.etcd.client import KV

FULL = 5.0  # seconds for which etcd is taken to be full after it has said so
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A batch on its way; its number and nonce are the cursor's value if it lands."""

    items: list[Item]
    parts: list[Part]
    number: int
    nonce: str


class Recovery:
    """Brings the requests of such a batch to their end, or back into the queue.

    `requeue` puts those back that are still wanted, `count` notes what these parts of an attempt have put.
    """

    def __init__(
        self,
        cursor: Cursor,
        journal: Journal,
        decider: Decider,
        requeue: Callable[[Sequence[Item]], None],
        count: Callable[[Attempt, Sequence[Part]], None],
    ) -> None:
        self._cursor, self._journal, self._decider = cursor, journal, decider
        self._requeue, self._count = requeue, count
        self._full_until = float("-inf")

    def is_full(self) -> bool:
        """Whether etcd has said lately that its space is used up."""
        return time.monotonic() < self._full_until

    def not_answered(self, items: Sequence[Item], error: errors.EtcdError) -> None:
        """etcd did not carry the batch out, or did not say: each is told which, and the cursor is unknown."""
        if isinstance(error, errors.PermissionDenied | errors.Refused):
            _log.error("etcd refused a batch", kind=type(error).__name__)
        self._cursor.certain = False
        for item in items:
            item.fail(_failure(item, error))

    async def out_of_space(self, attempt: Attempt, full: errors.OutOfSpace, asked: float) -> None:
        """etcd may have carried it out all the same (the first one past the quota); the cursor says so.

        Not of an attempt before it that is still on its way.
        """
        self._full_until, self._cursor.certain = time.monotonic() + FULL, False
        if full.earlier or not await self._cursor.find():
            self.not_answered(attempt.items, full)
            return
        if self._cursor.stands_at(attempt.number, attempt.nonce):
            await self._recover(attempt, asked)
            return
        goes_on, others = parted(attempt.items)
        for item in goes_on:
            item.again(fresh=True)
        self._requeue(goes_on)
        for item in others:
            item.fail(_failure(item, full))

    async def cursor_moved(self, attempt: Attempt, rows: Sequence[KV], asked: float) -> None:
        """An earlier attempt landed: of this batch, its answer lost, or of an abandoned one."""
        if not rows:
            self._begin_anew(attempt.items)
            return
        self._cursor.found(rows[0])
        if self._cursor.stands_at(attempt.number, attempt.nonce):
            await self._recover(attempt, asked)
            return
        for item in attempt.items:
            item.again(fresh=True)
        self._requeue(attempt.items)

    def _begin_anew(self, items: Sequence[Item]) -> None:
        """The cursor was removed: nothing under way can take effect any more, only what already has."""
        _log.warning("the producer's cursor is gone; going on as a new incarnation")
        self._journal.begin_anew()
        self._cursor.begin_anew()
        for item in items:
            item.expire()

    async def _recover(self, attempt: Attempt, asked: float) -> None:
        """This batch landed: its records say which parts did; parts without a record are decided again."""
        try:
            landed = await self._cursor.landed()
        except errors.EtcdError:
            for item in attempt.items:
                item.fail(UnknownOutcome())
            return
        keys = [self._journal.record_key(attempt.number, index) for index in range(len(attempt.parts))]
        done = [part.record and key in landed for part, key in zip(attempt.parts, keys, strict=True)]
        self._count(attempt, [part for part, is_done in zip(attempt.parts, done, strict=True) if is_done])
        for part, is_done in zip(attempt.parts, done, strict=True):
            members = [attempt.items[i] for i in part.members]
            if is_done:
                await self._finish(members, asked)
                continue
            for item in members:
                item.alone = True
                item.again(fresh=True)
            self._requeue(members)

    async def _finish(self, members: list[Item], asked: float) -> None:
        """These took effect; what they fetched is read again at the batch's own revision."""
        for item in members:
            assert item.decided is not None
            self._decider.learn_effects(item, self._cursor.revision, asked)
            try:
                rows = await self._cursor.fetched(item.decided.footprint.fetches)
            except errors.EtcdError:
                item.fail(UnknownOutcome())
                continue
            item.succeed(self._cursor.revision, rows, asked)


def parted(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Those that must go on however full etcd is, and the others."""
    return [item for item in items if item.must_go_on], [item for item in items if not item.must_go_on]


def _failure(item: Item, error: errors.EtcdError) -> Exception:
    """What a caller is told when etcd did not carry a batch out, or did not say."""
    changes = item.decided is not None and item.decided.footprint.changes
    if error.maybe_applied and changes:
        return UnknownOutcome()
    if isinstance(error, errors.PermissionDenied | errors.Refused):
        return Internal("etcd refused the transaction")
    return Overloaded("etcd's space is used up") if isinstance(error, errors.OutOfSpace) else NoQuorum()
