"""A store of a few keys in memory, for tests of decide functions.

`FakeView` is the real `View` over the real `Memory`; only what the pipeline does for it (reading what is
missing, carrying out the effects) is done here, at once and on a dictionary.

    store = FakeStore(); store.seed(key, value)
    outcome = store.run(lambda view: decide(view))     # effects applied; raises what decide raises
    outcome.value, outcome.revision, outcome.rows
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import ABSENT, Fact, Memory
from strongbox.store.decisions.view import View

T = TypeVar("T")
NOW_MS = 1_700_000_000_000


class FakeRow(NamedTuple):
    """As strongbox.store.decisions.batch_txn.Row."""

    key: bytes
    value: bytes
    mod_revision: int
    create_revision: int


class FakeOutcome(NamedTuple):
    """As strongbox.store.decisions.work.Outcome, and the view it was decided from."""

    value: object
    revision: int
    rows: tuple[FakeRow, ...]
    view: FakeView


class FakeStore:
    """Keys with revisions, and a memory that never lags. `now_ms` is the clock."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms
        self.revision = 1
        self.facts: dict[bytes, Fact] = {}
        self.created: dict[bytes, int] = {}
        self.memory = Memory()

    def seed(self, key: bytes, value: bytes | None) -> None:
        """Put (or with None delete) a key, as its own revision."""
        self.revision += 1
        self._set(key, value)

    def value(self, key: bytes) -> bytes | None:
        """What a key holds now."""
        return self.facts.get(key, ABSENT).value

    def keys(self, prefix: bytes) -> list[bytes]:
        """All keys that begin with `prefix`, sorted."""
        return sorted(key for key in self.facts if key.startswith(prefix))

    def view(self, draft: Draft | None = None) -> FakeView:
        """A view of what is there now."""
        return FakeView(store=self, draft=draft)

    def run(self, decide: Callable[[View], object], draft: Draft | None = None) -> FakeOutcome:
        """Decide, and carry the effects out; a refusal leaves everything as it was."""
        view = self.view(draft)
        value = decide(view)
        self._require_before(view)
        rows = tuple(row for fetch in view.footprint.fetches for row in self.range(*fetch))
        if view.footprint.puts or view.footprint.deletes:
            self.revision += 1
        for key, text in view.footprint.puts.items():
            self._set(key, text)
        for key in view.footprint.deletes:
            self._set(key, None)
        return FakeOutcome(value, self.revision, rows, view)

    def range(self, start: bytes, end: bytes, limit: int = 0, keys_only: bool = False) -> list[FakeRow]:
        """Rows of `[start, end)` in order."""
        keys = sorted(key for key in self.facts if start <= key < end)
        return [
            FakeRow(
                key,
                b"" if keys_only else self.facts[key].value or b"",
                self.facts[key].mod_revision,
                self.created[key],
            )
            for key in (keys[:limit] if limit else keys)
        ]

    def _require_before(self, view: View) -> None:
        told = self.value(keyspace.CLUSTER_TIME)
        if view.footprint.before_ms is not None and told is not None:
            assert int(told) < view.footprint.before_ms, "the compare of cluster/time would fail"

    def _set(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.facts.pop(key, None)
            self.created.pop(key, None)
        else:
            self.facts[key] = Fact(value, self.revision)
            self.created.setdefault(key, self.revision)
        self.memory.learn(key, self.facts.get(key, ABSENT), self.revision, 0.0)


class FakeView(View):
    """A view over a dictionary: `FakeView({key: value})`, or `store.view()`."""

    def __init__(
        self,
        facts: Mapping[bytes, bytes] | None = None,
        now_ms: int = NOW_MS,
        draft: Draft | None = None,
        store: FakeStore | None = None,
    ) -> None:
        self.store = store if store is not None else FakeStore(now_ms)
        for key, value in (facts or {}).items():
            self.store.seed(key, value)
        super().__init__(self.store.memory, draft, self.store.now_ms)

    def get(self, key: bytes) -> Fact:
        self._load(key)
        return super().get(key)

    def prefetch(self, *keys: bytes) -> None:
        for key in keys:
            self._load(key)
        super().prefetch(*keys)

    def _load(self, key: bytes) -> None:
        self.store.memory.learn(key, self.store.facts.get(key, ABSENT), self.store.revision, 0.0)
