"""Group commit: what arrived while the last batch was in flight is the next batch.

One batch is in flight at a time. When the last one had company the next waits up to `GATHER` seconds (or for
`CROWD` requests) for more: a caller that is alone never waits. Each request is decided from memory (`View`),
proved and carried out by the batch's transaction (`batch_txn`); a request whose compares failed is decided
again, from what the failed branch found, then after a few tries by reading first (`deciding`).

Every attempt compares the producer's cursor, which the batch itself moves, so an attempt that arrives after
its own retry does nothing. When an answer is lost, or etcd is full, the cursor says what became of the batch
(`batch_recovery`). Until the cursor is known again no other batch is sent.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import structlog

from strongbox import unsealed_proof
from strongbox.clock import Clock
from strongbox.errors import Internal, NoQuorum, Overloaded, TooLarge
from strongbox.store import keyspace
from strongbox.store.decisions import batch_txn as batches
from strongbox.store.decisions.audit_journal import Journal
from strongbox.store.decisions.batch_recovery import Attempt, Recovery, parted
from strongbox.store.decisions.batch_txn import Claims, Part, PartAnswer
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.deciding import Decider
from strongbox.store.decisions.producer_cursor import Cursor
from strongbox.store.decisions.work import Item, Outcome, Work
from strongbox.store.etcd import errors
from strongbox.store.etcd.client import Etcd, rows_of
from strongbox.store.space.admission import Effect, Space, bytes_of

__all__ = ["Effect", "Outcome", "Pipeline", "Work"]
T = TypeVar("T")
GATHER = 0.005  # seconds; measured: batches of 24 instead of 4 at 64 connections
CROWD = 32  # requests
MAX_WAITING = 4096  # requests
MAX_WAITING_BYTES = 32 << 20  # what they keep in memory, from the moment they are taken until they are over
PAUSE = 0.02  # seconds between two tries to reach etcd
LONGEST = 4.0  # seconds one batch may hold up the next
_log = structlog.get_logger(__name__)


class Pipeline:
    """The way of every request of one replica to etcd."""

    def __init__(
        self, etcd: Etcd, memory: Memory, journal: Journal, clock: Clock, space: Space | None = None
    ) -> None:
        self._etcd, self._memory, self._journal = etcd, memory, journal
        self._space = space or Space()
        self._decider = Decider(etcd, memory, clock, self._space)
        self._waiting: deque[Item] = deque()
        self._alarm: asyncio.Future[None] | None = None
        self._enough = 1
        self._task: asyncio.Task[None] | None = None
        self._cursor = Cursor(etcd, journal)
        self._recovery = Recovery(self._cursor, journal, self._decider, self._requeue, self._count)
        self._company = False
        self._max_parts = MAX_WAITING
        self._waiting_bytes = 0

    async def start(self) -> None:
        """Begin to take requests."""
        self._task = asyncio.create_task(self._run(), name="pipeline")

    async def close(self) -> None:
        """Stop; whoever still waits gets `NoQuorum`, or `UnknownOutcome` when what he changes was sent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft().fail(NoQuorum("the service is stopping"))

    async def submit(self, work: Work[T]) -> Outcome[T]:
        """Decide `work` and carry it out.

        Raises what it was refused with, `NoQuorum` (surely nothing happened, or nothing that matters),
        `UnknownOutcome`, `Overloaded`, and for duties `Deposed`.
        """
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + work.weight > MAX_WAITING_BYTES:
            raise Overloaded
        if work.draft is not None and not work.always:
            self._journal.require_room()
        item = Item(work)
        self._waiting_bytes += item.weight
        self._waiting.append(item)
        self._arrived()
        # A timer and a future: asyncio.timeout costs three times as much, for every request.
        loop = asyncio.get_running_loop()
        timer = loop.call_at(loop.time() + work.deadline - time.monotonic(), item.expire)
        try:
            outcome: Outcome[T] = await item.done
            if item.proved is not None:
                unsealed_proof.note(item.proved)
            return outcome
        finally:
            timer.cancel()
            self._waiting_bytes -= item.weight
            del item  # else what is raised holds this frame, and the item what is raised

    async def _run(self) -> None:
        while True:
            await self._gather()
            items = self._take()
            try:
                await self._round(items)
            except asyncio.CancelledError:
                for item in items:  # of those that were sent nobody knows
                    item.expire()
                raise
            except Exception:  # noqa: BLE001  the pipeline outlives any defect; this batch does not
                _log.exception("the pipeline failed a batch")
                self._cursor.certain = False
                for item in items:
                    item.fail(Internal())

    async def _gather(self) -> None:
        while not self._waiting:
            await self._sleep(None)
        if self._company and len(self._waiting) < CROWD:
            await self._sleep(GATHER)

    async def _sleep(self, seconds: float | None) -> None:
        """Until woken: by the first request (None), or by a crowd or after so many seconds."""
        loop = asyncio.get_running_loop()
        self._alarm, self._enough = loop.create_future(), 1 if seconds is None else CROWD
        timer = loop.call_later(seconds, self._ring) if seconds is not None else None
        try:
            await self._alarm
        finally:
            self._alarm = None
            if timer is not None:
                timer.cancel()

    def _ring(self) -> None:
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)

    def _arrived(self) -> None:
        """Something was put into the queue; a task that sleeps for a crowd is not woken by each of it."""
        if len(self._waiting) >= self._enough:
            self._ring()

    def _take(self) -> list[Item]:
        """Everything that waits and is still wanted."""
        items = [item for item in self._waiting if not item.done.done()]
        self._waiting.clear()
        return items

    def _requeue(self, items: Sequence[Item]) -> None:
        self._waiting.extendleft(reversed([item for item in items if not item.done.done()]))

    async def _round(self, items: list[Item]) -> None:
        known = self._cursor.certain or await self._cursor.find()
        ready = await self._decider.decide(items) if known else None
        if ready is None:  # etcd does not answer; each request ends by its own deadline
            self._requeue(items)
            await asyncio.sleep(PAUSE)
            return
        chosen = self._choose(ready)
        if chosen:
            await self._commit(chosen)

    def _choose(self, ready: list[Item]) -> list[Item]:
        """The next batch, in order; the others wait, and are not overtaken by what they overlap."""
        claims = Claims()
        chosen: list[Item] = []
        later: list[Item] = []
        if self._recovery.is_full() and any(item.must_go_on for item in ready):
            ready, later = parted(ready)
        operations = size = 0
        for item in ready:
            if item.decided is None:  # its keys are still to be read
                later.append(item)
                continue
            more_operations, more_size = batches.cost_of(item.decided)
            fits = operations + more_operations <= batches.MAX_OPS and size + more_size <= batches.MAX_BYTES
            if (not chosen or (fits and len(chosen) < self._max_parts)) and claims.admits(
                item.decided.footprint
            ):
                operations, size = operations + more_operations, size + more_size
                chosen.append(item)
            else:
                later.append(item)
                self._outweighs(item, more_size)
            claims.add(item.decided.footprint)
        self._requeue(later)
        return chosen

    def _outweighs(self, item: Item, size: int) -> None:
        """What waits decided weighs what it would put, if that is more than what it said."""
        more = max(0, size - item.weight)
        item.weight += more
        self._waiting_bytes += more

    async def _commit(self, items: list[Item]) -> None:
        self._company = len(items) > 1
        decided = [item.decided for item in items if item.decided is not None]
        attempt = Attempt(items, batches.parts_of(decided), self._cursor.batch + 1, secrets.token_hex(8))
        request = batches.build(
            decided,
            attempt.parts,
            self._journal,
            attempt.number,
            attempt.nonce,
            self._cursor.revision,
            past_quota=self._recovery.is_full() and all(item.must_go_on for item in items),
        )
        _announce(items)
        asked = time.monotonic()
        deadline = min(max(item.work.deadline for item in items), asked + LONGEST)
        try:
            reply = await self._etcd.transact(request, deadline=deadline, idempotent=True)
        except errors.OutOfSpace as full:
            await self._recovery.out_of_space(attempt, full, asked)
            return
        except errors.EtcdError as error:
            self._not_answered(items, error)
            return
        if not reply.succeeded:
            await self._recovery.cursor_moved(attempt, rows_of(reply.responses[0].response_range), asked)
            return
        self._cursor.at(attempt.number, reply.header.revision)
        self._max_parts = MAX_WAITING
        *told, room = reply.responses[1:]
        self._memory.learn(keyspace.ROOM, batches.fact_of(room), reply.header.revision, asked)
        answers = [
            batches.read_part(answer, [decided[i] for i in part.members])
            for part, answer in zip(attempt.parts, told, strict=True)
        ]
        landed = [part for part, told in zip(attempt.parts, answers, strict=True) if told.succeeded]
        self._count(attempt, landed)
        for part, answer in zip(attempt.parts, answers, strict=True):
            self._settle([items[i] for i in part.members], answer, reply.header.revision, asked)

    def _count(self, attempt: Attempt, landed: Sequence[Part]) -> None:
        """What these parts, which took effect, have put."""
        revision, records = self._cursor.revision, [part.size for part in landed if part.record]
        self._journal.committed(revision, len(records), sum(records))
        decided = [attempt.items[i].decided for part in landed for i in part.members]
        puts = sum(bytes_of(one.footprint.puts) for one in decided if one is not None)
        self._space.put(revision, puts + sum(records))

    def _settle(self, members: list[Item], told: PartAnswer, revision: int, asked: float) -> None:
        if told.succeeded:
            for item in members:
                self._decider.learn_effects(item, revision, asked)
                item.succeed(revision, told.rows, asked)
            return
        for key, fact in told.found.items():
            self._memory.learn(key, fact, revision, asked)
        for key in told.changed:
            self._memory.forget(key)
        for item in members:
            assert item.decided is not None
            changed = not told.changed.isdisjoint(item.decided.footprint.reads)
            if len(members) == 1 or changed or self._decider.is_outdated(item):
                item.alone = True
                item.again(fresh=False)
            else:
                self._stood_by(item)
        self._requeue(members)

    def _stood_by(self, item: Item) -> None:
        """Its part failed by what another read: once by chance, and from the second time on it is alone."""
        item.bystander += 1
        if item.bystander > 1:
            item.alone = True
            if item.decided is not None:
                item.decided.alone = True

    def _not_answered(self, items: list[Item], error: errors.EtcdError) -> None:
        if isinstance(error, errors.TooLarge):
            if len(items) > 1:
                self._max_parts = max(1, len(items) // 2)
                self._requeue(items)
            else:
                items[0].fail(TooLarge())
            return
        self._recovery.not_answered(items, error)


def _announce(items: Sequence[Item]) -> None:
    """The batch is about to be sent; work that can go on meanwhile starts now."""
    for item in items:
        item.sent = True
        if item.work.on_decided is not None and item.refusal is None:
            item.work.on_decided(item.value)
