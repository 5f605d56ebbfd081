"""Deciding requests from memory, reading what is missing, and answering what needs no transaction.

A request whose decision asks for keys that are not in memory is decided again after they were read, the
missing keys of all requests together, 64 in a linearizable read. A refusal before anybody is authenticated
leaves no record (nothing unauthenticated fills the outbox) and is proved by no transaction; so it must rest
on facts read after the request arrived. So must every other end that no transaction proves: a decision that
fails by a defect, such as a record nobody can read, and one whose term in office is said to be over.

Work is bounded by bytes: a round reads `ROUND_BYTES` at most, a key of each call in turn, and whose keys were
not reached, or who has had `ROUNDS` reads, waits for the next round; one request may not ask for more than
`ITEM_BYTES` (`TooLarge`), nor for `MAX_ROUNDS` reads one after the other. What
was decided and has to wait is decided again only when something it read has changed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from itertools import chain, zip_longest
from typing import TypeVar

import structlog

from strongbox.clock import Clock
from strongbox.errors import Internal, StrongBoxError, TooLarge
from strongbox.store import keyspace
from strongbox.store.decisions.batch_txn import Decided, fact_of
from strongbox.store.decisions.cache import ABSENT, Fact, Memory
from strongbox.store.decisions.space_check import SpaceCheck
from strongbox.store.decisions.view import Unread, View
from strongbox.store.decisions.work import Item, Work
from strongbox.store.duties.election import Deposed
from strongbox.store.etcd import errors, txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.space.admission import Effect, Space

T = TypeVar("T")
READ_AT_ONCE = 64  # keys in one answer at most; fewer while values are large
READ_LEAST = 4
ANSWER_BYTES = 2 << 20  # an answer larger than this halves the next ones
ROUND_BYTES = 8 << 20  # read before what could be decided is carried out
ITEM_BYTES = 32 << 20  # read for one request: half of the memory, so that it cannot lose what it needs
AT_A_STRETCH = 0.05  # seconds of deciding, after which others have their turn: a probe, a beat, an answer
ROUNDS = 8  # reads, one after the other, before what could be decided is carried out
MAX_ROUNDS = 32  # reads that one decision may ask for, one after the other: a cold memory takes up to nine
_log = structlog.get_logger(__name__)


class Decider:
    """Turns requests into decisions, over one replica's memory."""

    def __init__(self, etcd: Etcd, memory: Memory, clock: Clock, space: Space | None = None) -> None:
        self._etcd, self._memory, self._clock = etcd, memory, clock
        self._space_check = SpaceCheck(memory, space or Space())
        self._at_once = READ_AT_ONCE // 4

    async def decide(self, items: list[Item]) -> list[Item] | None:
        """Decide each request, reading what is missing in rounds.

        Refusals that need no record are answered right away. Returns what is left, those still undecided
        among them; None when etcd does not answer the reads.
        """
        # Nobody who has left is decided for: what he had taken along for it may be another's now.
        undecided = [item for item in items if not item.done.done() and self.is_outdated(item)]
        budget = ROUND_BYTES
        for _ in range(ROUNDS):
            missing = await self._attempt_each(undecided)
            if not missing or budget <= 0:
                break
            read = await self._read(_in_turn(missing), budget)
            if read is None:
                return None
            budget -= sum(read.values())
            for item, keys in missing.items():
                if any(key in read for key in keys):  # else its turn has not come yet
                    _count(item, sum(read.get(key, 0) for key in keys))
            undecided = [item for item in items if not item.done.done() and self.is_outdated(item)]
        return [item for item in items if not item.done.done()]

    async def _attempt_each(self, items: list[Item]) -> dict[Item, tuple[bytes, ...]]:
        """Decide each once, unless it has left meanwhile; returns the keys that are missing."""
        missing, began = {}, time.monotonic()
        for item in items:
            if time.monotonic() - began >= AT_A_STRETCH:
                await asyncio.sleep(0)
                began = time.monotonic()
            if not item.done.done() and (keys := self._attempt(item)):
                missing[item] = keys
        return missing

    def is_outdated(self, item: Item) -> bool:
        """Whether it has to be decided, or what it was decided from is known to have changed."""
        if item.decided is None:
            return True
        before = item.decided.footprint.before_ms
        if before is not None and before <= self._now_ms():
            return True
        for key, revision in item.decided.footprint.reads.items():
            known = self._memory.recall(key)
            if known is not None and known.fact.mod_revision != revision:
                return True
        return False

    def _attempt(self, item: Item) -> tuple[bytes, ...]:
        """Decide once; returns the keys that are missing."""
        item.decided, item.refusal = None, None
        work = item.work
        draft = replace(work.draft) if work.draft is not None else None
        # The view is not given the item: a circle of the two would keep a request's values in memory until
        # the collector of circles runs, hundreds of requests later.
        may_grow = partial(self._space_check.may_grow, item.accepted)
        view = View(self._memory, draft, self._now_ms(), item.fresh_since, may_grow)
        item.view = view
        try:
            item.value = _decided(work, view)
            self._space_check.weigh(item, view)
        except Unread as unread:
            return unread.keys
        except StrongBoxError as refusal:
            return self._refuse(item, view, refusal)
        except Deposed as over:  # a duty's own business, not a defect; memory may still hold an earlier term
            if self._refreshes(item, view):
                return self._attempt(item)
            item.fail(over)
            return ()
        except Exception:  # noqa: BLE001  one defective decision must not fail its whole batch
            if self._refreshes(item, view):  # what it stumbled over may be gone from etcd since
                return self._attempt(item)
            _log.exception("a decision failed", op=draft.op if draft else "")
            item.fail(Internal())
            return ()
        self._accept(item, view, "ok", "")
        return ()

    def _refuse(self, item: Item, view: View, refusal: StrongBoxError) -> tuple[bytes, ...]:
        if view.draft is not None and view.draft.accessor:
            view.drop_effects()
            item.effect = Effect.NEUTRAL
            try:
                self._space_check.require_space(item)
            except Unread as unread:
                return unread.keys
            except StrongBoxError as full:  # no space for the record
                item.fail(full)
                return ()
            item.refusal = refusal.with_traceback(None)
            self._accept(item, view, "refused", refusal.reason)
            return ()
        if self._refreshes(item, view):
            return self._attempt(item)
        item.fail(refusal)
        return ()

    def _refreshes(self, item: Item, view: View) -> bool:
        """Have what no transaction proves rest on facts read since; whether to decide again."""
        if item.fresh_since >= item.accepted or not self._rests_on_old_facts(view, item.accepted):
            return False
        item.fresh_since = item.accepted
        return True

    def _rests_on_old_facts(self, view: View, since: float) -> bool:
        known = (self._memory.recall(key) for key in view.footprint.reads)
        return any(fact is None or fact.seen_at < since for fact in known)

    def _accept(self, item: Item, view: View, outcome: str, reason: str) -> None:
        if view.draft is not None:
            view.draft.ts_ms = view.now_ms
            if not view.draft.outcome:  # a refusal that has effects says so itself: a login that failed
                view.draft.outcome, view.draft.reason = outcome, reason
        for draft in view.others:
            draft.ts_ms, draft.outcome = view.now_ms, draft.outcome or outcome
        item.decided = Decided(view.footprint, view.draft, item.alone, view.others)

    def _now_ms(self) -> int:
        known = self._memory.recall(keyspace.CLUSTER_TIME)
        told = int(known.fact.value) if known is not None and known.fact.value else 0
        now: int = self._clock.now_ms()
        return max(now, told)

    async def _read(self, keys: list[bytes], budget: int) -> dict[bytes, int] | None:
        """Read keys into memory, each slice at one revision, until `budget` bytes came.

        Returns how many bytes each had that was read; None when etcd did not answer in time.
        """
        asked = time.monotonic()
        read: dict[bytes, int] = {}
        while len(read) < len(keys) and sum(read.values()) < budget:
            some = keys[len(read) : len(read) + self._at_once]
            request = txn.txn([], [txn.range_(key) for key in some])
            try:
                reply = await self._etcd.transact(request, deadline=asked + 1.0, idempotent=True)
            except errors.EtcdError:
                return None
            size = 0
            for key, response in zip(some, reply.responses, strict=True):
                fact = fact_of(response)
                self._memory.learn(key, fact, reply.header.revision, asked)
                read[key] = len(fact.value or b"")
                size += read[key]
            self._at_once = (
                max(READ_LEAST, self._at_once // 2)
                if size > ANSWER_BYTES
                else (min(READ_AT_ONCE, self._at_once * 2))
            )
        return read

    def learn_effects(self, item: Item, revision: int, asked: float) -> None:
        assert item.decided is not None
        for key, value in item.decided.footprint.puts.items():
            self._memory.learn(key, Fact(value, revision), revision, asked)
        for key in item.decided.footprint.deletes:
            self._memory.learn(key, ABSENT, revision, asked)


def _count(item: Item, read: int) -> None:
    """So many bytes were read for it, in one read more; who asks for too much fails."""
    item.read += read
    item.rounds += 1
    if item.read > ITEM_BYTES:
        item.fail(TooLarge())
    elif item.rounds > MAX_ROUNDS:
        _log.error(
            "a decision asks for one key after the other", op=item.work.draft.op if item.work.draft else ""
        )
        item.fail(Internal())


def _decided(work: Work[T], view: View) -> T:
    """The decision; what it was given by its view is worth nothing afterwards."""
    try:
        return work.decide(view)
    finally:
        view.close()


def _in_turn(missing: dict[Item, tuple[bytes, ...]]) -> list[bytes]:
    """All the keys, one request of each call after the other: a call of many requests delays no other."""
    calls: dict[object, list[tuple[bytes, ...]]] = {}
    for item, keys in missing.items():
        call = item.work.draft.request_id if item.work.draft is not None else ""
        calls.setdefault(call or item, []).append(keys)
    turns = chain.from_iterable(zip_longest(*calls.values(), fillvalue=()))
    return list(dict.fromkeys(chain.from_iterable(turns)))
