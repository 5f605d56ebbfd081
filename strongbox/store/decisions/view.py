"""The view a decision is made from: what it reads becomes the proof, what it puts becomes the effect.

A decision is a synchronous function of a `View`. Everything it reads is remembered here and compared by
etcd (`mod_revision`) in the one transaction that carries it out, so a decision from stale memory cannot
take effect: the compare fails and the request is decided again. Reading a key that is not in memory raises
`Unread`; the pipeline reads all the keys named so far in one go and decides again, so a decision must have
no side effects besides the view.

A view is open while its decision is made, and once more while the function given to `reveal` reads the rows
of the view's own transaction. What belongs to a view (a `Caller`) can be used only then: so nothing that one
transaction proved is taken for proved in another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import ABSENT, Fact, Memory
from strongbox.store.space.admission import STRENGTH, Effect

P = TypeVar("P")
LARGE = 4096  # bytes of a value

__all__ = ["ABSENT", "Draft", "Fact", "Fetch", "Row", "Unread", "View"]


class Unread(Exception):
    """A decision needs keys that are not in memory."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        super().__init__("keys to be read")
        self.keys = keys


class Row(NamedTuple):
    """One row of a fetched range."""

    key: bytes
    value: bytes
    mod_revision: int
    create_revision: int


class Fetch(NamedTuple):
    """A range read inside the transaction: `[start, end)`; `limit` 0 is no limit."""

    start: bytes
    end: bytes
    limit: int
    keys_only: bool


@dataclass(slots=True)
class Footprint:
    """All that one decision has read, wants to change and wants to fetch."""

    reads: dict[bytes, int]
    puts: dict[bytes, bytes]
    deletes: set[bytes]
    fetches: list[Fetch]
    before_ms: int | None
    large: set[bytes] = field(default_factory=set)  # keys read whose values a failed compare does not return

    @property
    def changes(self) -> bool:
        """Whether the decision needs a part of its own in the batch."""
        return bool(self.puts or self.deletes or self.fetches)


class View:
    """One attempt at one decision. `fresh_since`: facts seen earlier (monotonic seconds) count as unread.

    `effect` is set (`means`) by decisions that put keys and yet must go on when etcd is nearly full; None: by
    what is put and deleted.
    """

    def __init__(
        self,
        memory: Memory,
        draft: Draft | None,
        now_ms: int,
        fresh_since: float = 0.0,
        may_grow: Callable[[], bool] = lambda: True,
    ) -> None:
        self.effect: Effect | None = None
        self.proves_unsealed = False
        self.may_grow = may_grow  # whether a decision that makes keys would be carried out
        self.draft = draft
        self.now_ms = now_ms
        self.footprint = Footprint({}, {}, set(), [], None)
        self.others: list[Draft] = []
        self._memory = memory
        self._fresh_since = fresh_since
        self._is_open = True
        self._reveal: Callable[[Sequence[Row]], Any] | None = None

    def get(self, key: bytes) -> Fact:
        """What `key` holds; from here on the decision depends on it."""
        fact = self._recall(key)
        if fact is None:
            raise Unread((key,))
        self.footprint.reads[key] = fact.mod_revision
        if fact.value is not None and len(fact.value) > LARGE:
            self.footprint.large.add(key)
        return fact

    def parsed(self, key: bytes, parse: Callable[[bytes, bytes], P]) -> P | None:
        """`parse(key, value)`, done once per revision; `None` when the key is absent."""
        self.get(key)
        remembered = self._memory.recall(key)
        return None if remembered is None else remembered.parsed(key, parse)

    def known(self, key: bytes, parse: Callable[[bytes, bytes], P]) -> P | None:
        """Like `parsed`, but of what `key` was last seen to hold: it is not compared, so it may be old.

        For values that something compared shows to be the right ones.
        """
        self.prefetch(key)
        remembered = self._memory.recall(key)
        return None if remembered is None else remembered.parsed(key, parse)

    def prefetch(self, *keys: bytes) -> None:
        """Name keys that will be needed, so that they are read in one round trip instead of a chain."""
        missing = tuple(key for key in keys if self._recall(key) is None)
        if missing:
            raise Unread(missing)

    def found_unsealed(self) -> None:
        """Note that the seal state, which this decision compares, says that the cluster is unsealed.

        Its transaction is then a proof of that (strongbox.unsealed_proof).
        """
        self.proves_unsealed = True

    def before(self, expires_at_ms: int) -> None:
        """Hold only while the cluster's time is before `expires_at_ms` (milliseconds since the epoch)."""
        known = self.footprint.before_ms
        self.footprint.before_ms = expires_at_ms if known is None else min(known, expires_at_ms)

    def put(self, key: bytes, value: bytes) -> None:
        """Write `key` when the decision is carried out."""
        self.footprint.deletes.discard(key)
        self.footprint.puts[key] = value

    def delete(self, key: bytes) -> None:
        """Delete `key` when the decision is carried out."""
        self.footprint.puts.pop(key, None)
        self.footprint.deletes.add(key)

    def fetch(self, start: bytes, end: bytes, limit: int = 0, keys_only: bool = False) -> None:
        """Read a range inside the transaction; its rows are in the outcome, in the order of the calls."""
        self.footprint.fetches.append(Fetch(start, end, limit, keys_only))

    def means(self, effect: Effect) -> None:
        """Say what the changes do to etcd's space, where they do not show it; the strongest effect counts."""
        self.effect = max(self.effect, effect, key=STRENGTH.index)

    def reveal(self, read: Callable[[Sequence[Row]], Any]) -> None:
        """Have `read(rows of the fetches)` make the outcome's value, instead of what the decision returns.

        It is called at most once, when the transaction has proved the decision; the view is open meanwhile.
        """
        self._reveal = read

    def told(self, value: Any, rows: Sequence[Row]) -> Any:
        """The outcome's value, now that the transaction of this view has landed."""
        if self._reveal is None:
            return value
        self._is_open = True
        try:
            return self._reveal(rows)
        finally:
            self._is_open = False

    def require_open(self) -> None:
        """Raise RuntimeError (a defect) unless this decision is being made, or its outcome revealed."""
        if not self._is_open:
            raise RuntimeError("what a transaction proved was used beyond it")

    def close(self) -> None:
        """End the view: its decision is made."""
        self._is_open = False

    def record(self, draft: Draft) -> None:
        """Leave one more audit record with the effects: of a duty's decision that does several things."""
        self.others.append(draft)

    @property
    def drafts(self) -> Sequence[Draft]:
        """All its audit records."""
        return self.others if self.draft is None else [self.draft, *self.others]

    def drop_effects(self) -> None:
        """Keep the proof, forget the effects: the decision is a refusal."""
        self.footprint.puts.clear()
        self.footprint.deletes.clear()
        self.footprint.fetches.clear()
        self.others.clear()
        self.effect = None

    def _recall(self, key: bytes) -> Fact | None:
        remembered = self._memory.recall(key)
        if remembered is None or remembered.seen_at < self._fresh_since:
            return None
        return remembered.fact
