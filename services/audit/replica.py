"""One replica of the chain: follows the outbox in (revision, key) order and writes every entry durably, once.

* A position is (size, hmac, revision): the chain's length and HMAC when everything up to that etcd revision
  is in.
* At start the newest known position that this replica's own log confirms is taken: its last report in etcd,
  the mark, or the empty chain. From there the outbox's history is replayed; what is on disk already is
  computed again and must be equal (so each record is chained exactly once, however the process died), what is
  not is appended.
* History is a watch from that revision. Where etcd has compacted it, the untrimmed records are listed at one
  revision instead; that is complete only if the mark is not beyond the position, else the history comes from
  a peer.
* A log that disagrees with what was chained (`Broken`) is never written to again: people have to look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple

import structlog

from services.audit.chain import GENESIS, Entry, link, parse_line
from services.audit.gathering import Hurry, gathered
from services.audit.outbox_entries import Change, Cursors, entries_of
from services.audit.segments import Broken, Segments
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace, txn
from strongbox.store.client import KV, Etcd, rows_of
from strongbox.store.errors import Compacted, EtcdError
from strongbox.store.watch import Batch, Kind, watch

START = keyspace.OUTBOX
END = keyspace.prefix_end(keyspace.PRODUCERS)
REPORT_EVERY = 0.5  # seconds; every report is an etcd write, so not one for each append
CHECK_EVERY = 1.0  # seconds between two looks at the file
_RETRY = 0.5  # seconds
_log = structlog.get_logger(__name__)


class Position(NamedTuple):
    """How far a chain has come."""

    size: int
    hmac: str
    revision: int

    @classmethod
    def parse(cls, value: bytes) -> Position:
        """From a ChainPosition record."""
        record = storage.ChainPosition.FromString(value)
        return cls(record.size, record.hmac, record.revision)

    def pack(self) -> bytes:
        """As a ChainPosition record."""
        return storage.ChainPosition(
            size=self.size, hmac=self.hmac, revision=self.revision
        ).SerializeToString()


BEGINNING = Position(0, GENESIS, 0)
CopyHistory = Callable[[Segments, bytes, Position], Awaitable[None]]


class Replica:
    """Follows the outbox into `log` while `run` runs. `node_id` names its report in etcd."""

    def __init__(
        self, etcd: Etcd, log: Segments, node_id: str, copy_history: CopyHistory | None = None
    ) -> None:
        self.log = log
        self.position = BEGINNING
        self.trouble = ""
        self._etcd = etcd
        self._report_key = keyspace.AUDIT_REPLICAS + node_id.encode()
        self._copy_history = copy_history
        self._moved = asyncio.Condition()
        self._cursors = Cursors()
        self._hurry = Hurry()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with the log; `trouble` says what."""
        return not self.trouble

    async def run(self, key: bytes) -> None:
        """Follow for ever with the chain's key. Raises Broken when the log cannot be trusted any more."""
        helpers = [asyncio.create_task(self._keep_reporting()), asyncio.create_task(self._keep_checking())]
        follower = asyncio.create_task(self._keep_following(key))
        try:
            done, _ = await asyncio.wait([follower, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (follower, *helpers):
                task.cancel()
            await asyncio.gather(follower, *helpers, return_exceptions=True)

    async def reached(self, revision: int, deadline: float) -> None:
        """Wait until all up to an etcd revision is in. Raises TimeoutError at `deadline` (monotonic s)."""
        limit = asyncio.timeout(max(0.0, deadline - time.monotonic()))
        with self._hurry:
            async with self._moved, limit:
                await self._moved.wait_for(lambda: self.position.revision >= revision)

    # following ------------------------------------------------------------------------------------

    async def _keep_following(self, key: bytes) -> None:
        while True:
            try:
                await self._begin(key)
                while True:
                    await self._follow(key)
            except Broken as fault:
                self.trouble = str(fault)
                _log.error("the audit log cannot be trusted", why=str(fault))
                raise
            except OSError as error:
                self.trouble = f"the audit log cannot be written: {error.strerror}"
                _log.error("the audit log cannot be written", why=error.strerror)
                await asyncio.sleep(_RETRY)
                await asyncio.to_thread(self.log.reopen)
            except EtcdError as error:
                _log.warning("the outbox cannot be followed now", why=str(error))
                await asyncio.sleep(_RETRY)

    async def _begin(self, key: bytes) -> None:
        """Find the position to go on from, fetching history from a peer if the outbox no longer has it."""
        look = txn.txn([], [txn.range_(self._report_key), txn.range_(keyspace.AUDIT_MARK)])
        seen = await self._etcd.transact(look, idempotent=True)
        known = [Position.parse(row.value) for part in seen.responses for row in rows_of(part.response_range)]
        for position in sorted(known, reverse=True):
            if position.size > self.log.size:
                _log.error(
                    "the log on disk is shorter than it was", entries=self.log.size, known=position.size
                )
        usable = [position for position in known if position.size <= self.log.size]
        start = max(usable, default=BEGINNING, key=lambda position: (position.size, position.revision))
        if await asyncio.to_thread(self.log.hmac_at, start.size) != start.hmac:
            raise Broken(f"entry {start.size - 1} is not the one this chain had there")
        await self._move(start)

    async def _follow(self, key: bytes) -> None:
        """Follow until etcd says that the history is gone; then list what is left."""
        try:
            async with (
                aclosing(watch(self._etcd, START, END, self.position.revision + 1)) as batches,
                aclosing(gathered(batches, self._hurry)) as lots,
            ):
                async for lot in lots:
                    await self._take(key, lot)
        except Compacted:
            await self._list(key)

    async def _take(self, key: bytes, lot: Sequence[Batch]) -> None:
        changes = []
        for event in (event for batch in lot for event in batch.events):
            if event.kind is Kind.PUT:
                changes.append(Change(event.key, event.value, event.mod_revision))
                if event.key.startswith(keyspace.PRODUCERS):
                    self._check_cursor(changes[-1])
            elif event.key.startswith(keyspace.PRODUCERS):
                self._cursors.forget(event.key)
        await self._chain(key, changes, lot[-1].revision)

    def _check_cursor(self, change: Change) -> None:
        gap = self._cursors.learn(change)
        if gap:
            _log.error("audit batches are missing", **gap._asdict())

    async def _list(self, key: bytes) -> None:
        """Take the untrimmed records at one revision; complete unless the mark is beyond our position."""
        look = txn.txn([], [txn.range_(keyspace.AUDIT_MARK), txn.range_(START, keyspace.prefix_end(START))])
        seen = await self._etcd.transact(look, idempotent=True)
        marks, records = (rows_of(part.response_range) for part in seen.responses)
        mark = Position.parse(marks[0].value) if marks else BEGINNING
        if mark.revision > self.position.revision:
            await self._copy(key, mark)
        await self._chain(key, _after(records, self.position.revision), seen.header.revision)

    async def _copy(self, key: bytes, mark: Position) -> None:
        if self._copy_history is None:
            raise Broken(f"{mark.size} entries are trimmed and no peer is known to copy them from")
        if self.log.size < mark.size:
            await self._copy_history(self.log, key, mark)
        if await asyncio.to_thread(self.log.hmac_at, mark.size) != mark.hmac:
            raise Broken("a peer's history does not lead to the mark")
        await self._move(mark)

    # chaining -------------------------------------------------------------------------------------

    async def _chain(self, key: bytes, changes: Iterable[Change], revision: int) -> None:
        """Chain the records among `changes` and make them durable."""
        size, head = self.position.size, self.position.hmac
        fresh: list[Entry] = []
        stored: list[Entry] = []
        for entry in entries_of(changes):
            chained = link(key, head, replace(entry, index=size))
            (fresh if size >= self.log.size else stored).append(chained)
            size, head = size + 1, chained.hmac
        if stored:
            await asyncio.to_thread(_require_equal, self.log, stored)
        if fresh:
            await asyncio.shield(asyncio.to_thread(self.log.append, fresh))
        await self._move(Position(size, head, revision))
        self.trouble = ""

    async def _move(self, position: Position) -> None:
        async with self._moved:
            self.position = position
            self._moved.notify_all()

    # reporting ------------------------------------------------------------------------------------

    async def _keep_reporting(self) -> None:
        """Put what is durable; an older report that arrives late only delays trimming."""
        reported: Position | None = None
        while True:
            await asyncio.sleep(REPORT_EVERY)
            position = self.position
            if position in (reported, BEGINNING):
                continue
            try:
                report = txn.txn([], [txn.put(self._report_key, position.pack())])
                await self._etcd.transact(report, idempotent=True)
                reported = position
            except EtcdError as error:
                _log.warning("the audit position is not reported", why=str(error))

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                await asyncio.to_thread(self.log.check)
            except Broken as fault:
                self.trouble = str(fault)
                _log.error("the audit log cannot be trusted", why=str(fault))
                raise


def _after(rows: Iterable[KV], revision: int) -> list[Change]:
    return [Change(row.key, row.value, row.mod_revision) for row in rows if row.mod_revision > revision]


def _require_equal(log: Segments, entries: list[Entry]) -> None:
    """The log already holds these entries; raises Broken where it says something else."""
    for entry, line in zip(entries, log.read(entries[0].index), strict=False):
        if line != entry.line():
            raise Broken(f"entry {parse_line(line).index} on disk is not what the outbox says")
