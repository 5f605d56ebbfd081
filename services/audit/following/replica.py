"""One replica of the chain: follows the outbox in (revision, key) order and writes every entry durably, once.

* A position is (size, hmac, revision): the chain's length and HMAC once everything up to that etcd revision
  is chained.
* `start_position` finds where to begin. From there the outbox's history is replayed. Entries that are on disk
  already are computed again and must be equal, the others are appended; so each record is chained exactly
  once, however the process died.
* History is read by a watch from that revision. Where etcd has compacted it, the untrimmed records are listed
  at one revision instead. That list is complete only if the mark is not beyond the position; otherwise the
  history comes from a peer.
* A log that disagrees with what was chained (`Broken`) is never written to again: people have to look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog
from google.protobuf.message import DecodeError

from services.audit.following.outbox_reader import Change, Cursors, announcements_in, entries_of
from services.audit.following.position import BEGINNING, Position, first_of
from services.audit.following.start_position import find_start
from services.audit.following.watch_batches import Hurry, gathered
from services.audit.keys import AuditKeys
from services.audit.log.find_beginning import NO_COPIES, Copies
from services.audit.log.segments import Broken, Segments
from strongbox.audit_log.chain import Entry, Keys, MissingKey, link
from strongbox.crypto.errors import IntegrityError
from strongbox.errors import StrongBoxError
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd, rows_of
from strongbox.store.etcd.errors import Compacted, EtcdError
from strongbox.store.etcd.watch import Batch, Kind, watch

START = keyspace.OUTBOX
END = keyspace.prefix_end(keyspace.PRODUCERS)
REPORT_EVERY = 0.5  # seconds; every report is an etcd write, so not one for each append
CHECK_EVERY = 1.0  # seconds between two looks at the file
_RETRY = 0.5  # seconds
_log = structlog.get_logger(__name__)


__all__ = ["BEGINNING", "CopyHistory", "Position", "Replica"]
CopyHistory = Callable[[Segments, Keys, Position], Awaitable[None]]


class Replica:
    """Follows the outbox into `log` while `run` runs. `node_id` names its report in etcd."""

    def __init__(
        self,
        etcd: Etcd,
        log: Segments,
        node_id: str,
        copy_history: CopyHistory | None = None,
        on_durable: Callable[[list[bytes]], None] | None = None,
        copies: Copies = NO_COPIES,
    ) -> None:
        self.log = log
        self.position = BEGINNING
        self.trouble = log.damage.reason if log.damage else ""
        self._doubt = ""
        self.gaps = 0
        self._etcd = etcd
        self._report_key = keyspace.AUDIT_REPLICAS + node_id.encode()
        self.has_begun = False  # the chain's keys have confirmed in this process where the log begins
        self._copy_history = copy_history
        self._on_durable = on_durable
        self.copies = copies
        self._moved = asyncio.Condition()
        self._cursors = Cursors()
        self._hurry = Hurry()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with the log; `trouble` says what."""
        return not self.trouble

    async def run(self, keys: AuditKeys) -> None:
        """Follow for ever with the chain's keys. Raises Broken when the log cannot be trusted any more."""
        helpers = [asyncio.create_task(self._keep_reporting()), asyncio.create_task(self._keep_checking())]
        follower = asyncio.create_task(self._keep_following(keys))
        try:
            done, _ = await asyncio.wait([follower, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (follower, *helpers):
                task.cancel()
            await asyncio.gather(follower, *helpers, return_exceptions=True)

    async def reached(self, revision: int, deadline: float) -> None:
        """Wait until all up to `revision` is chained. Raises TimeoutError at `deadline` (monotonic s)."""
        limit = asyncio.timeout(max(0.0, deadline - time.monotonic()))
        with self._hurry:
            async with self._moved, limit:
                await self._moved.wait_for(lambda: self.position.revision >= revision)

    async def grown(self, size: int, seconds: float) -> bool:
        """Wait at most `seconds` for more than `size` entries; returns whether there are."""
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self.position.size > size)
        except TimeoutError:
            return False
        return True

    async def reports(self, deadline: float) -> dict[str, int]:
        """By node, the first entry that its replica has not archived. Raises EtcdError."""
        prefix = keyspace.AUDIT_REPLICAS
        request = txn.txn([], [txn.range_(prefix, keyspace.prefix_end(prefix))])
        seen = await self._etcd.transact(request, deadline=deadline, idempotent=True)
        return {
            row.key.removeprefix(prefix).decode("utf-8", "backslashreplace"): first_of(row.value)
            for row in rows_of(seen.responses[0].response_range)
        }

    def doubt(self, why: str) -> None:
        """Mark the log as in trouble, because it is not what was signed. This lasts until the next start."""
        self.trouble = self._doubt = why
        _log.critical("the audit log is in doubt", why=why)

    # following ------------------------------------------------------------------------------------

    async def _keep_following(self, keys: AuditKeys) -> None:
        while True:
            try:
                await self._begin(keys)
                while True:
                    await self._follow(keys)
            except Broken as fault:
                self._cannot_go_on(fault)
                raise
            except OSError as error:
                self.trouble = f"the audit log cannot be written: {error.strerror}"
                _log.error("the audit log cannot be written", why=error.strerror)
                await self._reopen()
            except MissingKey as error:
                self.trouble = f"an audit key is not there: {error}"
                _log.error("an audit key is not there", term=error.term, entry=error.index)
            except (EtcdError, StrongBoxError) as error:
                _log.warning("the outbox cannot be followed now", why=type(error).__name__)
            except (IntegrityError, DecodeError, ValueError) as error:
                # Somebody altered a key, a mark or a report in etcd: that must not end the process.
                self.trouble = f"what etcd holds for the audit log is not ours: {type(error).__name__}"
                _log.exception("what etcd holds for the audit log is not ours")
            await asyncio.sleep(_RETRY)

    async def _reopen(self) -> None:
        """Reopen the log after a failed write. If that raises OSError, the next append tries again."""
        try:
            await asyncio.to_thread(self.log.reopen)
        except OSError as error:
            _log.error("the audit log cannot be opened", why=error.strerror)
        except Broken as fault:
            self._cannot_go_on(fault)
            raise

    def _cannot_go_on(self, fault: Broken) -> None:
        self.trouble = str(fault)
        _log.error("the audit log cannot be trusted", why=str(fault))

    async def _begin(self, keys: AuditKeys) -> None:
        """Find the position to go on from, mending the log if need be."""
        opened = await keys.open()
        start = await find_start(self._etcd, self.log, opened, self._report_key, self._mending, self.copies)
        self.has_begun = True
        self._cursors.begin(())  # a replay counts each producer's batches from the first it brings
        await self._move(start)
        if start.size and not start.revision:
            await self._list(keys)

    def _mending(self, what: str) -> None:
        self.trouble = what
        _log.error("the audit log is being mended", why=what)

    async def _follow(self, keys: AuditKeys) -> None:
        """Follow until etcd says that the history is gone; then list what is left."""
        try:
            async with (
                aclosing(watch(self._etcd, START, END, self.position.revision + 1)) as batches,
                aclosing(gathered(batches, self._hurry)) as lots,
            ):
                async for lot in lots:
                    await self._take(keys, lot)
        except Compacted:
            await self._list(keys)

    async def _take(self, keys: AuditKeys, lot: Sequence[Batch]) -> None:
        changes = []
        for event in (event for batch in lot for event in batch.events):
            if event.kind is Kind.PUT:
                changes.append(Change(event.key, event.value, event.mod_revision))
                if event.key.startswith(keyspace.PRODUCERS):
                    self._check_cursor(changes[-1])
            elif event.key.startswith(keyspace.PRODUCERS):
                self._cursors.forget(event.key)
        await self._chain(keys, changes, lot[-1].revision)

    def _check_cursor(self, change: Change) -> None:
        gap = self._cursors.learn(change)
        if gap:
            self.gaps += 1
            _log.error("audit batches are missing", **gap._asdict())

    async def _list(self, keys: AuditKeys) -> None:
        """Chain the untrimmed records of one revision; a peer gives what was trimmed beyond our position."""
        prefixes = (keyspace.OUTBOX, keyspace.PRODUCERS)
        ranges = [txn.range_(prefix, keyspace.prefix_end(prefix)) for prefix in prefixes]
        look = txn.txn([], [txn.range_(keyspace.AUDIT_MARK), *ranges])
        seen = await self._etcd.transact(look, idempotent=True)
        marks, records, cursors = (rows_of(part.response_range) for part in seen.responses)
        self._cursors.begin(Change(row.key, row.value, row.mod_revision) for row in cursors)
        mark = Position.parse(marks[0].value) if marks else BEGINNING
        if mark.revision > self.position.revision:
            await self._copy(keys, mark)
        await self._chain(keys, _after(records, self.position.revision), seen.header.revision)

    async def _copy(self, keys: AuditKeys, mark: Position) -> None:
        if self._copy_history is None:
            raise Broken(f"{mark.size} entries are trimmed and no peer is known to copy them from")
        if self.log.size < mark.size:
            await self._copy_history(self.log, keys.require().chain, mark)
        if await asyncio.to_thread(self.log.hmac_at, mark.size) != mark.hmac:
            raise Broken("a peer's history does not lead to the mark")
        await self._move(mark)

    # chaining -------------------------------------------------------------------------------------

    async def _chain(self, keys: AuditKeys, changes: Sequence[Change], revision: int) -> None:
        """Chain the records among `changes` and make them durable."""
        told = announcements_in(changes)
        announced = {one for one in told if await keys.is_announced(*one)}
        size, head = self.position.size, self.position.hmac
        term, chain = self.log.term_at(size), keys.require().chain
        fresh: list[Entry] = []
        stored: list[Entry] = []
        for entry in entries_of(changes, announced):
            if term not in chain:
                raise MissingKey(size, term)
            chained = link(chain[term], head, entry, size)
            (fresh if size >= self.log.size else stored).append(chained)
            size, head, term = size + 1, chained.hmac, chained.announces or term
        if stored:
            await asyncio.to_thread(_require_equal, self.log, stored)
        if fresh:
            await asyncio.shield(asyncio.to_thread(self.log.append, fresh))
            if self._on_durable is not None:
                self._on_durable([entry.line() for entry in fresh])
        await self._move(Position(size, head, revision))
        self.trouble = self._doubt

    async def _move(self, position: Position) -> None:
        async with self._moved:
            self.position = position
            self._moved.notify_all()

    # reporting ------------------------------------------------------------------------------------

    async def _keep_reporting(self) -> None:
        """Report the durable position; an older report that arrives late only delays trimming."""
        reported: tuple[Position, int] | None = None
        while True:
            await asyncio.sleep(REPORT_EVERY)
            position, first = self.position, self.log.first
            if (position, first) == reported or not position.revision:
                continue
            try:
                put = txn.put(self._report_key, position.pack(first))
                report = txn.txn([], [txn.nested([], [put])])  # a full etcd takes it: trimming frees some
                await self._etcd.transact(report, idempotent=True)
                reported = position, first
            except EtcdError as error:
                _log.warning("the audit position is not reported", why=str(error))

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                await asyncio.to_thread(self.log.check)
            except Broken as fault:
                self._cannot_go_on(fault)
                raise
            except OSError as error:
                _log.warning("the audit log cannot be looked at", why=error.strerror)


def _after(rows: Iterable[KV], revision: int) -> list[Change]:
    return [Change(row.key, row.value, row.mod_revision) for row in rows if row.mod_revision > revision]


def _require_equal(log: Segments, entries: list[Entry]) -> None:
    """The log already holds these entries; raises Broken where it says something else."""
    for entry, line in zip(entries, log.read(entries[0].index), strict=False):
        if line not in (entry.line(), replace(entry, earlier=True).line()):
            raise Broken(f"entry {entry.index} on disk is not what the outbox says")
