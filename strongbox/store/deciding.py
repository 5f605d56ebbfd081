"""Deciding requests from memory, reading what is missing, and answering what needs no transaction.

A request whose decision asks for keys that are not in memory is decided again after they were read, the
missing keys of all requests together, 64 in a linearizable read. A refusal before anybody is authenticated
leaves no record (nothing unauthenticated fills the outbox) and is proved by no transaction; so it must rest
on facts read after the request arrived. So must every other end that no transaction proves: a decision that
fails by a defect, such as a record nobody can read, and one whose term in office is said to be over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from strongbox.clock import Clock
from strongbox.errors import Internal, NoQuorum, StrongBoxError, UnknownOutcome
from strongbox.store import errors, keyspace, txn
from strongbox.store.batch import Decided
from strongbox.store.client import Etcd
from strongbox.store.election import Deposed
from strongbox.store.journal import Draft
from strongbox.store.memory import ABSENT, Fact, Memory
from strongbox.store.view import Row, Unread, View

T = TypeVar("T")
FROM_MEMORY = 2  # tries before a contended request reads first
READ_AT_ONCE = 64  # keys: even the largest secrets fit one answer, and what came stays known
MAX_ROUNDS = 8  # reads that one decision may ask for, one after the other
_log = structlog.get_logger(__name__)


class Outcome(NamedTuple, Generic[T]):
    """What was decided, the etcd revision that proves it, and the rows of its fetches."""

    value: T
    revision: int
    rows: tuple[Row, ...]


@dataclass(slots=True)
class Work(Generic[T]):
    """One request; `draft` is its audit record to be (None: a duty's work), `deadline` is monotonic.

    `on_decided` is called when the transaction is about to be sent, and again if it is decided again.
    `always`: taken even when the audit outbox is full (init, unseal, sealing, the outbox's own upkeep).
    """

    decide: Callable[[View], T]
    draft: Draft | None
    deadline: float
    on_decided: Callable[[T], None] | None = None
    always: bool = False


class Item:
    """A request in the pipeline."""

    __slots__ = (
        "accepted",
        "alone",
        "decided",
        "done",
        "fresh_since",
        "refusal",
        "sent",
        "tries",
        "value",
        "view",
        "work",
    )

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self.done: asyncio.Future[Outcome[Any]] = asyncio.get_running_loop().create_future()
        self.accepted = time.monotonic()
        self.fresh_since = 0.0
        self.tries = 0
        self.alone = False
        self.sent = False
        self.value: Any = None
        self.view: View | None = None
        self.refusal: StrongBoxError | None = None
        self.decided: Decided | None = None

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def expire(self) -> None:
        """The deadline has come: what was sent may still take effect, what was not never will."""
        changes = self.sent and self.decided is not None and self.decided.footprint.changes
        self.fail(UnknownOutcome() if changes else NoQuorum())

    def again(self, *, fresh: bool) -> None:
        """Prepare to be decided once more: what was sent has surely not taken effect."""
        self.tries += 1
        self.sent, self.decided = False, None
        if fresh or self.tries > FROM_MEMORY:
            self.fresh_since = time.monotonic()

    def succeed(self, revision: int, rows: tuple[Row, ...]) -> None:
        if self.done.done():
            return
        if self.refusal is not None or self.view is None:
            self.done.set_exception(self.refusal or Internal())
            return
        try:
            self.done.set_result(Outcome(self.view.told(self.value, rows), revision, rows))
        except Exception:  # noqa: BLE001  one defective reading must not fail its whole batch
            _log.exception("what was read could not be told")
            self.done.set_exception(Internal())


class Decider:
    """Turns requests into decisions, over one replica's memory."""

    def __init__(self, etcd: Etcd, memory: Memory, clock: Clock) -> None:
        self._etcd, self._memory, self._clock = etcd, memory, clock

    async def decide(self, items: list[Item]) -> list[Item] | None:
        """Decide each request, reading what is missing in rounds.

        Refusals that need no record are answered right away. Returns what is left; None when etcd does not
        answer the reads.
        """
        # Nobody who has left is decided for: what he had taken along for it may be another's now.
        undecided = [item for item in items if not item.done.done()]
        for _ in range(MAX_ROUNDS):
            missing: dict[bytes, None] = {}
            for item in undecided:
                missing.update(dict.fromkeys(self._attempt(item)))
            if not missing:
                break
            if not await self._read(list(missing)):
                return None
            undecided = [item for item in items if not item.done.done() and self.is_outdated(item)]
        for item in items:
            if item.decided is None:
                item.fail(Internal("a decision asked for too many keys, one after the other"))
        return [item for item in items if not item.done.done()]

    def is_outdated(self, item: Item) -> bool:
        if item.decided is None:
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
        view = View(self._memory, draft, self._now_ms(), item.fresh_since)
        item.view = view
        try:
            item.value = _decided(work, view)
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
            item.refusal = refusal
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

    async def _read(self, keys: list[bytes]) -> bool:
        """Read keys into memory, each slice at one revision; False when etcd did not answer in time."""
        asked = time.monotonic()
        for start in range(0, len(keys), READ_AT_ONCE):
            some = keys[start : start + READ_AT_ONCE]
            request = txn.txn([], [txn.range_(key) for key in some])
            try:
                reply = await self._etcd.transact(request, deadline=asked + 1.0, idempotent=True)
            except errors.EtcdError:
                return False
            for key, response in zip(some, reply.responses, strict=True):
                rows = response.response_range.kvs
                fact = Fact(rows[0].value, rows[0].mod_revision) if rows else ABSENT
                self._memory.learn(key, fact, reply.header.revision, asked)
        return True

    def learn_effects(self, item: Item, revision: int, asked: float) -> None:
        assert item.decided is not None
        for key, value in item.decided.footprint.puts.items():
            self._memory.learn(key, Fact(value, revision), revision, asked)
        for key in item.decided.footprint.deletes:
            self._memory.learn(key, ABSENT, revision, asked)


def _decided(work: Work[T], view: View) -> T:
    """The decision; what it was given by its view is worth nothing afterwards."""
    try:
        return work.decide(view)
    finally:
        view.close()
