"""The tidy duty's decisions: what is expired goes, children of the revoked go, markers go last."""

from __future__ import annotations

from typing import Any, cast

import pytest

from services.auth import tidy_decisions
from services.auth.logins.secret_ids import SecretIds
from services.auth.repository import MARKER_MS, MINUTE_MS, Repository, due_key
from services.auth.tidy_duty import Tidy
from strongbox.access import token_format
from strongbox.access.record_reader import Lookup
from strongbox.errors import Internal
from strongbox.lease_records.counters import Tally
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from tests.support.access import FakeCluster
from tests.support.pipeline import FakePipeline


class Fence:
    """A term that lasts, or is over."""

    over = False

    def require(self, view: View, /) -> None:
        if self.over:
            raise PermissionError("deposed")

    def progress(self) -> None:
        """Nobody looks."""


class Tidied(FakeCluster):
    """A fake cluster and passes of the duty over it."""

    def __init__(self) -> None:
        super().__init__()
        self.repository, self.fence = Repository(Lookup(self.source)), Fence()

    def make(self, name: str, parent: str = "", ttl_s: int = 60) -> str:
        token_digest = token_format.digest(name)
        record = storage.TokenRecord(
            accessor=name, parent=parent, expires_ms=self.store.now_ms + ttl_s * 1000, ttl_s=ttl_s
        )
        self.store.run(lambda view: self.repository.put_token(view, token_digest, record))
        return token_digest

    def one_pass(self) -> int:
        """As Tidy.one_pass, over the fake store."""
        found = 0
        for start, end in tidy_decisions.due_ranges(keyspace.TOKENS_DUE, self.store.now_ms):
            keys = [row.key for row in self.store.range(start, end, tidy_decisions.SLICE)]
            found += len(keys)
            if keys:
                self._settle(keys)
        return found

    def _settle(self, keys: list[bytes]) -> None:
        done = self.store.run(
            lambda view: tidy_decisions.settle(view, self.fence, self.repository, keys)
        ).value
        for parent in cast("list[tidy_decisions.Bereaved]", done):
            self._find_children(parent)

    def _find_children(self, parent: tidy_decisions.Bereaved) -> None:
        found = self.store.run(
            lambda view: tidy_decisions.read_children(view, self.fence, parent.accessor)
        ).rows
        self._revoke([child.key for child in found])
        if len(found) < tidy_decisions.SLICE:
            self.store.run(lambda view: tidy_decisions.leave_marker(view, self.fence, parent.key))

    def _revoke(self, keys: list[bytes]) -> None:
        self.store.run(lambda view: tidy_decisions.revoke_children(view, self.fence, self.repository, keys))

    def until_idle(self) -> None:
        while self.one_pass():
            pass


def revoke(cluster: Tidied, view: View, digest: str, record: storage.TokenRecord) -> None:
    tally = Tally()
    cluster.repository.revoke(view, digest, record, tally)
    tally.settle(view)


@pytest.fixture
def cluster() -> Tidied:
    return Tidied()


def records(cluster: Tidied) -> int:
    return len(cluster.store.keys(keyspace.TOKENS)) - 1  # the root token's


def test_what_is_not_due_stays(cluster: Tidied) -> None:
    cluster.make("young", ttl_s=600)
    assert cluster.one_pass() == 0
    assert records(cluster) == 1


def test_an_expired_token_is_cleared_away_with_all_that_leads_to_it(cluster: Tidied) -> None:
    cluster.make("parent", ttl_s=86_400)
    cluster.make("old", "parent")
    before = len(cluster.store.facts)
    cluster.store.now_ms += 3 * MINUTE_MS
    cluster.until_idle()
    assert records(cluster) == 1
    # Record, accessor, child and due entry; no lease outlives it, so no marker is needed.
    assert len(cluster.store.facts) == before - 4
    assert cluster.store.keys(keyspace.REVOKED) == []


def test_a_clock_that_runs_ahead_of_the_minute_drops_nothing(cluster: Tidied) -> None:
    cluster.make("young", ttl_s=600)
    (entry,) = cluster.store.keys(keyspace.TOKENS_DUE)
    cluster.store.run(lambda view: tidy_decisions.settle(view, cluster.fence, cluster.repository, [entry]))
    assert (records(cluster), cluster.store.value(entry)) == (1, b"expire")


def test_a_thousand_that_expire_in_one_minute_are_in_many_shards_and_all_go(cluster: Tidied) -> None:
    for number in range(1000):
        cluster.make(f"token {number}")
    shards = {key.removeprefix(keyspace.TOKENS_DUE)[:2] for key in cluster.store.keys(keyspace.TOKENS_DUE)}
    assert len(shards) > 200
    cluster.store.now_ms += 3 * MINUTE_MS
    cluster.until_idle()
    assert (records(cluster), cluster.store.keys(keyspace.TOKENS_DUE)) == (0, [])


def test_children_of_the_revoked_are_revoked_generation_by_generation(cluster: Tidied) -> None:
    parent = cluster.make("parent", ttl_s=86_400)
    for number in range(3):
        cluster.make(f"child{number}", "parent", 86_400)
        cluster.make(f"grandchild{number}", f"child{number}", 86_400)
    record = cluster.repository.lookup.token(cluster.store.view(), parent)
    assert record is not None
    cluster.store.run(lambda view: revoke(cluster, view, parent, record))
    cluster.until_idle()
    assert records(cluster) == 0
    assert len(cluster.store.keys(keyspace.REVOKED)) == 7
    assert cluster.store.keys(keyspace.CHILDREN) == []


def test_more_children_than_a_slice_are_all_found(cluster: Tidied) -> None:
    parent = cluster.make("parent", ttl_s=86_400)
    for number in range(tidy_decisions.SLICE + 5):
        cluster.make(f"child{number}", "parent", 86_400)
    record = cluster.repository.lookup.token(cluster.store.view(), parent)
    assert record is not None
    cluster.store.run(lambda view: revoke(cluster, view, parent, record))
    cluster.until_idle()
    assert records(cluster) == 0


async def test_all_children_are_revoked_in_one_pass_and_few_transactions(cluster: Tidied) -> None:
    """Their leases live until then, and who makes many children must not put that off."""
    parent = cluster.make("parent", ttl_s=86_400)
    for number in range(3 * tidy_decisions.SLICE + 5):
        cluster.make(f"child{number}", "parent", 86_400)
    record = cluster.repository.lookup.token(cluster.store.view(), parent)
    assert record is not None
    cluster.store.run(lambda view: revoke(cluster, view, parent, record))
    pipeline, unused = FakePipeline(cluster.store), cast("Any", None)
    secret_ids = SecretIds(cluster.repository.lookup)
    tidy = Tidy(cast("Any", pipeline), cluster.repository, secret_ids, unused, unused)
    await tidy._settle(cluster.fence, keyspace.TOKENS_DUE, [due_key(0, parent)])
    assert records(cluster) == 0
    assert pipeline.writes == 5  # four slices, and the marker's time
    assert tidy._in_haste  # for their children


async def test_children_that_cannot_be_revoked_are_tried_again_after_a_pause(
    cluster: Tidied, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = cluster.make("parent", ttl_s=86_400)
    cluster.make("child", "parent", 86_400)
    record = cluster.repository.lookup.token(cluster.store.view(), parent)
    assert record is not None
    cluster.store.run(lambda view: revoke(cluster, view, parent, record))

    def refuse(*_: object) -> None:
        raise Internal

    monkeypatch.setattr(tidy_decisions, "revoke_children", refuse)
    pipeline, unused = cast("Any", FakePipeline(cluster.store)), cast("Any", None)
    tidy = Tidy(pipeline, cluster.repository, SecretIds(cluster.repository.lookup), unused, unused)
    with pytest.raises(Internal):
        await tidy._settle(cluster.fence, keyspace.TOKENS_DUE, [due_key(0, parent)])
    assert not tidy._in_haste


def test_markers_go_when_no_lease_can_be_left_and_nothing_remains(cluster: Tidied) -> None:
    digest = cluster.make("old")
    record = cluster.repository.lookup.token(cluster.store.view(), digest)
    assert record is not None
    cluster.store.run(lambda view: revoke(cluster, view, digest, record))
    cluster.until_idle()
    assert cluster.store.value(keyspace.REVOKED + digest.encode()) == b"old"
    cluster.store.now_ms += MARKER_MS + 2 * MINUTE_MS
    cluster.until_idle()
    assert cluster.store.keys(keyspace.REVOKED) == []
    assert cluster.store.keys(keyspace.TOKENS_DUE) == []


def test_a_token_renewed_since_its_entry_was_read_is_kept(cluster: Tidied) -> None:
    digest = cluster.make("kept")
    record = cluster.repository.lookup.token(cluster.store.view(), digest)
    assert record is not None
    (entry,) = cluster.store.keys(keyspace.TOKENS_DUE)
    later = cluster.store.now_ms + 10 * MINUTE_MS
    cluster.store.run(lambda view: cluster.repository.move_expiry(view, digest, record, later))
    cluster.store.now_ms += 5 * MINUTE_MS
    cluster.store.run(lambda view: tidy_decisions.settle(view, cluster.fence, cluster.repository, [entry]))
    assert records(cluster) == 1


def test_a_forged_entry_of_the_children_index_revokes_nobody(cluster: Tidied) -> None:
    stranger = cluster.make("stranger", ttl_s=86_400)
    forged = keyspace.child("parent", "stranger")
    cluster.store.seed(forged, stranger.encode())
    cluster.store.run(
        lambda view: tidy_decisions.revoke_children(view, cluster.fence, cluster.repository, [forged])
    )
    assert records(cluster) == 1
    assert cluster.store.value(forged) is None


def test_a_deposed_holder_changes_nothing(cluster: Tidied) -> None:
    cluster.make("old")
    cluster.store.now_ms += 3 * MINUTE_MS
    cluster.fence.over = True
    with pytest.raises(PermissionError):
        cluster.one_pass()
    assert records(cluster) == 1


async def test_one_record_that_nobody_can_read_does_not_hold_up_the_others(cluster: Tidied) -> None:
    poison, *_ = [cluster.make(f"token {number}") for number in range(10)]
    forged = storage.AuthenticatedRecord(term=999, body=b"x", mac=b"y")  # a term whose key may yet arrive
    cluster.store.seed(keyspace.token(poison), forged.SerializeToString())
    cluster.store.now_ms += 3 * MINUTE_MS
    pipeline, unused = cast("Any", FakePipeline(cluster.store)), cast("Any", None)
    tidy = Tidy(pipeline, cluster.repository, SecretIds(cluster.repository.lookup), unused, unused)
    entries = cluster.store.keys(keyspace.TOKENS_DUE)
    settled = await tidy._settle_all(cluster.fence, keyspace.TOKENS_DUE, entries)
    assert settled == 9  # what cannot be settled makes no pass follow at once
    assert records(cluster) == 1
    assert [key.rsplit(b"/", 1)[1].decode() for key in cluster.store.keys(keyspace.TOKENS_DUE)] == [poison]
