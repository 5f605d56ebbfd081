"""The audit duty, done by one replica at a time: every second put the cluster's time (`cluster_time`) and
trim the outbox, every ten seconds sign a checkpoint, and close the cursors of producers that are gone
(`producer_closing`).

Every transaction compares the duty's term and the very key it moves (cluster/time, audit/mark), so neither a
deposed holder nor an attempt that arrives late changes anything.

Trimming goes up to the newest position that (1) `min(2, replicas)` replicas, the holder among them, hold
durably, and (2) the holder's own log confirms. If the report of any replica contradicts the holder's log,
nothing is trimmed any more and the alarm is raised: two chains that differ must both be kept. How much waits
is published all the same (`outbox_backlog`): by that all producers stop before etcd is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError

from services.audit.duties.cluster_time import Begun, clocks_of, next_time
from services.audit.duties.outbox_backlog import Backlog, Measuring
from services.audit.duties.producer_closing import Closing, incarnations_of
from services.audit.following.position import BEGINNING, Position
from services.audit.following.replica import Replica
from services.audit.log.segments import Archived, Broken
from services.audit.proofs.checkpoint_publisher import Forked, Publisher
from strongbox.audit_log.archive_marker import Unproven
from strongbox.clock import Clock
from strongbox.errors import Sealed
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.duties.election import Deposed, Term
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd, rows_of
from strongbox.store.etcd.errors import EtcdError

PERIOD = 1.0  # seconds
SIGN_EVERY = 10.0  # seconds
_MAX_PRODUCERS = 200  # range deletions in one transaction
_DEADLINE = 2.0  # seconds for one transaction: a slow etcd delays the next pass, and ends no duty
_log = structlog.get_logger(__name__)


class Diverged(Exception):
    """A replica's chain is not the holder's."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at etcd showed, all at one revision."""

    time: KV | None
    mark: KV | None
    reports: tuple[KV, ...]
    records: tuple[KV, ...]
    slots: tuple[KV, ...]
    clocks: tuple[int, ...]
    cursors: tuple[KV, ...] = ()
    incarnations: frozenset[str] = frozenset()

    @property
    def mark_position(self) -> Position:
        """Up to where the outbox is trimmed."""
        return Position.parse(self.mark.value) if self.mark else BEGINNING


class Trimming:
    """The duty's work, for one replica of the chain."""

    def __init__(
        self, etcd: Etcd, replica: Replica, clock: Clock, node_id: str, publisher: Publisher | None = None
    ) -> None:
        self.alarm = ""
        self._publisher = publisher
        self._closing = Closing()
        self._signed_at = 0.0
        self._etcd = etcd
        self._replica = replica
        self._clock = clock
        self._own_report = keyspace.AUDIT_REPLICAS + node_id.encode()
        self.backlog = Backlog()
        self._measuring = Measuring(etcd)

    async def work(self, term: Term) -> None:
        """Until deposed. Raises Deposed when a transaction's fence fails."""
        self.backlog, self._closing = Backlog(), Closing()
        try:
            await self._work(term)
        finally:
            self.alarm = ""

    async def _work(self, term: Term) -> None:
        begun: Begun | None = None
        while True:
            started = time.monotonic()
            try:
                seen = await self._look()
                begun = await self._put_time(term, seen, begun)
                moves = await self._trim(term, seen)
                await self._close(term, seen)
                if moves:
                    term.progress()
                await self._sign(term)
                self.alarm = ""
            except EtcdError as error:
                _log.warning("the audit duty waits for etcd", why=str(error))
            except (Diverged, Forked) as fault:
                self.alarm = f"audit replicas differ: {fault}"
                _log.critical("audit replicas differ: trimming has stopped", why=str(fault))
            except (Archived, Broken, OSError, Sealed) as error:
                _log.warning("the audit duty waits for its log", why=type(error).__name__)
            await asyncio.sleep(max(0.0, started + PERIOD - time.monotonic()))

    async def _look(self) -> Seen:
        """Read all that the duty decides from, keys only where values may be large."""
        whole = (keyspace.AUDIT_REPLICAS, keyspace.PRODUCERS, keyspace.NODES)
        keys_only = (keyspace.OUTBOX, keyspace.AUDIT_SLOTS)
        ranges = [
            *(txn.range_(prefix, keyspace.prefix_end(prefix)) for prefix in whole),
            *(txn.range_(prefix, keyspace.prefix_end(prefix), keys_only=True) for prefix in keys_only),
        ]
        singles = [txn.range_(keyspace.CLUSTER_TIME), txn.range_(keyspace.AUDIT_MARK)]
        request = txn.txn([], [*singles, *ranges])
        reply = await self._etcd.transact(request, deadline=time.monotonic() + _DEADLINE, idempotent=True)
        found = [rows_of(part.response_range) for part in reply.responses]
        first, mark = next(iter(found[0]), None), next(iter(found[1]), None)
        reports, cursors, nodes, records, slots = found[2:]
        return Seen(
            first, mark, reports, records, slots, clocks_of(nodes), cursors, frozenset(incarnations_of(nodes))
        )

    async def _sign(self, term: Term) -> None:
        """Every so often, sign what there is; what is unchanged is signed already."""
        size, now = self._replica.position.size, time.monotonic()
        if self._publisher is None or not size or now < self._signed_at + SIGN_EVERY:
            return
        try:
            await self._publisher.publish(size, now + _DEADLINE, [term.compare()])
        except Unproven as fault:  # trimming goes on; whoever is asked for a checkpoint elsewhere signs
            _log.error("the audit duty signs no checkpoint", why=str(fault))
        self._signed_at = now

    async def _close(self, term: Term, seen: Seen) -> None:
        """Remove the cursors of producers that are gone, each under the compare that it has not moved."""
        for row in self._closing.due(seen.cursors, seen.incarnations, seen.records, time.monotonic()):
            still = txn.mod_is(row.key, row.mod_revision)
            if await self._commit(term, [still], [txn.delete(row.key)]):
                _log.info(
                    "a producer that is gone is closed", producer=row.key.decode(), batch=row.value.decode()
                )

    # time -----------------------------------------------------------------------------------------

    async def _put_time(self, term: Term, seen: Seen, begun: Begun | None) -> Begun | None:
        """Advance cluster/time; returns the term's first put. Absent before init: nothing to do."""
        known = seen.time
        if known is None:
            return None
        now = time.monotonic()
        allowed_ms = None if begun is None else begun.allowance(now, int(known.value))
        value = next_time(int(known.value), self._clock.now_ms(), allowed_ms, seen.clocks)
        compares = [txn.mod_is(known.key, known.mod_revision)]
        await self._commit(term, compares, [txn.put(known.key, b"%020d" % value)])
        return begun or Begun(value, now)

    # trimming -------------------------------------------------------------------------------------

    async def _trim(self, term: Term, seen: Seen) -> bool:
        """Delete what enough replicas hold; False when there is something to delete and nothing could be."""
        mark = seen.mark_position
        try:
            moved = await self._move_mark(term, seen, mark)
        except (Diverged, Archived, Broken, OSError):
            with contextlib.suppress(EtcdError):  # later; what is wrong here is told whatever etcd does
                await self._clear(term, seen, mark)
            raise
        await self._clear(term, seen, moved or mark)
        return moved is not None and (moved.size > mark.size or not self.backlog.records)

    async def _move_mark(self, term: Term, seen: Seen, mark: Position) -> Position | None:
        """Where the mark is then; None when this replica cannot say how far it may go."""
        reports = {row.key: reported_in(row) for row in seen.reports}
        await asyncio.to_thread(self._require_agreement, reports)
        target = target_of(reports, self._own_report, mark)
        if target.size > self._replica.position.size or not self._replica.healthy:
            return None  # what this replica has not looked at since its start, it does not vouch for
        if target.size > mark.size:
            compares = [txn.mod_is(keyspace.AUDIT_MARK, seen.mark.mod_revision if seen.mark else 0)]
            deletions = deletions_up_to(seen.records, target.revision)
            await self._commit(term, compares, [txn.put(keyspace.AUDIT_MARK, target.pack()), *deletions])
        return target if target.size > mark.size else mark

    async def _clear(self, term: Term, seen: Seen, mark: Position) -> None:
        """Free slots whose record is chained, and publish how much is left."""
        operations = [txn.delete(row.key) for row in seen.slots if row.mod_revision <= mark.revision]
        left = [row for row in seen.records if row.mod_revision > mark.revision]
        backlog = await self._measuring.measure(left)
        if backlog != self.backlog:
            told = storage.Backlog(records=backlog.records, bytes=backlog.size).SerializeToString()
            operations.append(txn.put(keyspace.AUDIT_BACKLOG, told))
        if operations:
            await self._commit(term, [], operations)
        self.backlog = backlog

    def _require_agreement(self, reports: dict[bytes, Position]) -> None:
        """Every report that the holder's log reaches is what that log says. Blocking. Raises Diverged."""
        log = self._replica.log
        for key, report in reports.items():
            if log.first <= report.size <= log.size and log.hmac_at(report.size) != report.hmac:
                raise Diverged(f"{key.decode()} has another entry {report.size - 1}")

    async def _commit(
        self, term: Term, compares: Sequence[txn.Compare], operations: Sequence[txn.RequestOp]
    ) -> bool:
        """One fenced transaction; whether it was carried out.

        Another compare may fail by our own earlier attempt: the term's decides. What is done is nested, which
        etcd takes even when its space is used up: the cluster's time goes on, and trimming makes room.
        """
        nested = txn.nested([], operations)
        request = txn.txn([term.compare(), *compares], [nested], [txn.range_(term.key)])
        reply = await self._etcd.transact(request, deadline=time.monotonic() + _DEADLINE, idempotent=True)
        if reply.succeeded:
            return True
        rows = rows_of(reply.responses[0].response_range)
        if not rows or rows[0].mod_revision != term.fence:
            raise Deposed(f"term {term.number} of the audit duty is over")
        return False


def reported_in(row: KV) -> Position:
    """What a replica has reported; one that nobody can read holds nothing, and stands for a replica still."""
    try:
        return Position.parse(row.value)
    except DecodeError:
        _log.error(
            "an audit replica's report cannot be read", key=row.key.decode("utf-8", "backslashreplace")
        )
        return BEGINNING


def target_of(reports: dict[bytes, Position], own: bytes, mark: Position) -> Position:
    """The newest position that the holder and another replica (if there is one) hold durably; or the mark.

    A position that another replica reports and the holder has passed is one that both hold; so is the
    holder's own where another has passed it, but then the other's HMAC there is not known, so it is not used.
    """
    mine = reports.get(own)
    if mine is None:
        return mark
    others = [position for key, position in reports.items() if key != own]
    if not others:
        return max(mine, mark, key=_by_size)
    both = [position for position in others if position.size <= mine.size]
    return max([*both, mark], key=_by_size)


def _by_size(position: Position) -> tuple[int, int]:
    return position.size, position.revision


def deletions_up_to(records: Sequence[KV], revision: int) -> list[txn.RequestOp]:
    """One range deletion per producer of what was put up to `revision`; those beyond 200 go next time.

    A producer's keys rise with its revisions, so what is to go is one range from its first record on.
    """
    ranges: dict[bytes, tuple[bytes, bytes]] = {}
    for row in records:
        if row.mod_revision <= revision:
            producer = row.key.rsplit(b"/", 2)[0]
            first = ranges.get(producer, (row.key, row.key))[0]
            ranges[producer] = (first, row.key)
    return [txn.delete(first, last + b"\0") for first, last in list(ranges.values())[:_MAX_PRODUCERS]]
