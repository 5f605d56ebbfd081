"""A replica's memory of etcd: what each key held, and at which revision that was seen.

Nothing here is ever trusted: whatever is decided from it is compared in etcd by the transaction that carries
the decision out. A fact is replaced only by one seen at the same or a later revision, so an answer that
arrives late never puts an old fact over a newer one. The least recently used facts go first, by bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

P = TypeVar("P")
_OVERHEAD = 256  # bytes of Python objects per remembered key, roughly


class Fact(NamedTuple):
    """What is known of a key; absent is `(None, 0)`."""

    value: bytes | None
    mod_revision: int


ABSENT = Fact(None, 0)


class Remembered:
    """A fact, when it was seen, and what it parses to (once per revision)."""

    __slots__ = ("_parsed", "fact", "has_parsed", "seen_at", "seen_revision")

    def __init__(self, fact: Fact, seen_revision: int, seen_at: float) -> None:
        self.fact, self.seen_revision, self.seen_at = fact, seen_revision, seen_at
        self.has_parsed = False
        self._parsed: Any = None

    def parsed(self, key: bytes, parse: Callable[[bytes, bytes], P]) -> P | None:
        """The value's meaning; every reader of a key uses the same `parse`."""
        if self.fact.value is None:
            return None
        if not self.has_parsed:
            self._parsed = parse(key, self.fact.value)
            self.has_parsed = True
        return cast(P, self._parsed)


class Memory:
    """Facts by key, bounded by `limit_bytes`."""

    def __init__(self, limit_bytes: int = 64 << 20) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._facts: OrderedDict[bytes, Remembered] = OrderedDict()

    def recall(self, key: bytes) -> Remembered | None:
        """What is remembered of a key; `None` when it has to be read."""
        found = self._facts.get(key)
        if found is not None:
            self._facts.move_to_end(key)
        return found

    def learn(self, key: bytes, fact: Fact, revision: int, seen_at: float) -> None:
        """Remember that `key` held `fact` at etcd revision `revision`, asked for at monotonic `seen_at`."""
        known = self._facts.get(key)
        if known is not None:
            if known.seen_revision > revision:
                return
            if known.fact.mod_revision == fact.mod_revision:
                known.seen_revision, known.seen_at = revision, max(seen_at, known.seen_at)
                return
            self._forget(key)
        self._facts[key] = Remembered(fact, revision, seen_at)
        self._size += _cost(key, fact)
        while self._size > self._limit and len(self._facts) > 1:
            self._forget(next(iter(self._facts)))

    def forget(self, key: bytes) -> None:
        """Make the next decision read this key."""
        if key in self._facts:
            self._forget(key)

    def clear(self) -> None:
        """Forget everything, parsed policies and records included: the cluster is sealed."""
        self._facts.clear()
        self._size = 0

    def _forget(self, key: bytes) -> None:
        self._size -= _cost(key, self._facts.pop(key).fact)


def _cost(key: bytes, fact: Fact) -> int:
    return _OVERHEAD + len(key) + len(fact.value or b"")
