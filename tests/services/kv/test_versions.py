"""Versions against a model that keeps one small object per version and knows nothing of heads."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kv import versions
from services.kv.versions import Head, Settings
from strongbox.errors import (
    InvalidInput,
    NotFound,
    StrongBoxError,
    VersionDeleted,
    VersionDestroyed,
    VersionMismatch,
)

NOW = 1_000_000


@dataclass
class Life:
    """One version of the model."""

    state: str = "live"
    expires: int = 0


@dataclass
class Model:
    """What Vault's users expect, spelt out."""

    lives: dict[int, Life] = field(default_factory=dict)
    current: int = 0
    most: int = 10
    envelopes: set[int] = field(default_factory=set)

    def trim(self) -> None:
        self.lives = {n: life for n, life in self.lives.items() if n > max(self.lives) - self.most}
        self.envelopes &= set(self.lives)

    def read(self, number: int | None, now: int) -> str:
        life = self.lives.get(self.current if number is None else number)
        if life is None:
            return "NOT_FOUND"
        if life.state == "destroyed":
            return "DESTROYED"
        if life.expires and life.expires <= now:
            return "NOT_FOUND"
        return "DELETED" if life.state == "deleted" else "ok"


NUMBERS = st.lists(st.integers(1, 14), min_size=1, max_size=3, unique=True)
STEPS = st.one_of(
    st.tuples(st.just("write"), st.none() | st.integers(0, 8), st.none() | st.integers(1, 30)),
    st.tuples(st.sampled_from(["delete", "undelete", "destroy"]), NUMBERS),
    st.tuples(st.just("keep"), st.integers(1, 6)),
    st.tuples(st.just("wait"), st.integers(1, 20)),
)


class Both:
    """Code and model, moved together."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.model = Model()
        self.envelopes: set[int] = set()
        self.now = NOW

    def step(self, name: str, *args: object) -> None:
        before = self.head.SerializeToString(deterministic=True) if self.head is not None else None
        held = self.head
        getattr(self, f"_{name}")(*args)
        if held is not None:
            assert held.SerializeToString(deterministic=True) == before, "the head given was changed"
        self.compare()

    def compare(self) -> None:
        for number in (None, *range(1, 16)):
            assert self._outcome(number) == self.model.read(number, self.now)
        assert self.envelopes == self.model.envelopes
        if self.head is not None:
            assert versions.stored(self.head) == tuple(sorted(self.envelopes))

    def _outcome(self, number: int | None) -> str:
        if self.head is None:
            return "NOT_FOUND"
        try:
            versions.readable(self.head, number, self.now)
        except StrongBoxError as refusal:
            return refusal.reason
        return "ok"

    def _take(self, change: versions.Change) -> None:
        self.head = change.head
        self.envelopes -= set(change.gone)

    def _write(self, cas: int | None, ttl: int | None) -> None:
        model = self.model
        if cas not in (None, model.current):
            with pytest.raises(VersionMismatch):
                versions.written(self.head, cas, self.now, ttl)
            return
        self._take(versions.written(self.head, cas, self.now, ttl))
        model.current += 1
        model.lives[model.current] = Life(expires=self.now + ttl * 1000 if ttl else 0)
        model.envelopes.add(model.current)
        model.trim()
        self.envelopes.add(model.current)

    def _delete(self, numbers: list[int]) -> None:
        self._each("delete", numbers)

    def _undelete(self, numbers: list[int]) -> None:
        self._each("undelete", numbers)

    def _destroy(self, numbers: list[int]) -> None:
        self._each("destroy", numbers)

    def _each(self, what: str, numbers: list[int]) -> None:
        if self.head is None:
            return
        lives = [self.model.lives.get(number) for number in numbers]
        refused = None in lives or (
            what == "undelete" and any(life and life.state == "destroyed" for life in lives)
        )
        if refused:
            with pytest.raises(NotFound):
                self._act(what, self.head, numbers)
            return
        self._take(self._act(what, self.head, numbers))
        for number, life in zip(numbers, lives, strict=True):
            assert life is not None
            if what == "destroy":
                life.state = "destroyed"
                self.model.envelopes.discard(number)
            elif life.state != "destroyed":
                life.state = "deleted" if what == "delete" else "live"

    def _act(self, what: str, head: Head, numbers: list[int]) -> versions.Change:
        if what == "undelete":
            return versions.undeleted(head, numbers)
        act = versions.deleted if what == "delete" else versions.destroyed
        return act(head, numbers, self.now)

    def _keep(self, most: int) -> None:
        if self.head is None:
            return
        self._take(versions.configured(self.head, Settings(most, None, None)))
        self.model.most = most
        self.model.trim()

    def _wait(self, seconds: int) -> None:
        self.now += seconds * 1000


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_history_gives_what_the_model_gives(steps: list[tuple[object, ...]]) -> None:
    both = Both()
    for name, *args in steps:
        both.step(str(name), *args)


def written(times: int, head: Head | None = None) -> Head:
    for _ in range(times):
        head = versions.written(head, None, NOW, None).head
    assert head is not None
    return head


def test_cas_zero_means_that_the_secret_must_not_exist() -> None:
    assert versions.written(None, 0, NOW, None).head.current_version == 1
    with pytest.raises(VersionMismatch) as refused:
        versions.written(written(3), 0, NOW, None)
    assert refused.value.metadata == {"current_version": "3"}


def test_a_deleted_or_destroyed_newest_version_still_counts_for_cas() -> None:
    head = versions.destroyed(versions.deleted(written(2), [2], NOW).head, [2], NOW).head
    with pytest.raises(VersionMismatch):
        versions.written(head, 0, NOW, None)
    assert versions.written(head, 2, NOW, None).head.current_version == 3


def test_where_cas_is_required_a_write_without_it_is_refused() -> None:
    head = versions.configured(written(1), Settings(None, True, None)).head
    with pytest.raises(InvalidInput, match="cas"):
        versions.written(head, None, NOW, None)
    assert versions.written(head, 1, NOW, None).head.current_version == 2


def test_what_happened_first_keeps_its_time() -> None:
    head = versions.deleted(written(1), [1], NOW).head
    assert versions.deleted(head, [1], NOW + 5).head.versions[0].deleted_ms == NOW
    head = versions.destroyed(head, [1], NOW + 6).head
    again = versions.destroyed(head, [1], NOW + 7)
    assert (again.head.versions[0].destroyed_ms, again.gone) == (NOW + 6, ())


def test_a_deleted_version_says_so_and_a_destroyed_one_says_that() -> None:
    head = versions.deleted(written(2), [1, 2], NOW).head
    with pytest.raises(VersionDeleted):
        versions.readable(head, None, NOW)
    with pytest.raises(VersionDestroyed):
        versions.readable(versions.destroyed(head, [1], NOW).head, 1, NOW)


def test_one_unknown_version_spoils_the_whole_request() -> None:
    head = written(2)
    with pytest.raises(NotFound):
        versions.deleted(head, [1, 3], NOW)
    assert not head.versions[0].deleted_ms


def test_only_what_was_destroyed_at_that_moment_is_purged() -> None:
    head = versions.destroyed(written(3), [1], NOW).head
    head = versions.destroyed(head, [2], NOW + 1).head
    head = versions.purged(head, [1, 2, 3], NOW, NOW + 9).head
    assert [version.purged_ms for version in head.versions] == [NOW + 9, 0, 0]


def test_settings_not_given_stay() -> None:
    head = versions.configured(written(1), Settings(5, True, {"owner": "me"})).head
    head = versions.configured(head, Settings(None, None, None)).head
    assert (head.max_versions, head.cas_required, dict(head.custom)) == (5, True, {"owner": "me"})
    other = versions.configured(head, Settings(None, False, {"b": "c"})).head
    assert (other.cas_required, dict(other.custom)) == (False, {"b": "c"})
    assert not versions.configured(head, Settings(None, None, {})).head.custom


def test_the_last_version_number_is_the_last() -> None:
    with pytest.raises(InvalidInput):
        versions.written(Head(current_version=versions.MAX_NUMBER), None, NOW, None)
