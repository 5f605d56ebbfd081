"""Read leases: when one is written, what leads to it, and that a forged one is none."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.access.authenticated_records import seal_record
from strongbox.access.token_groups import groups_of
from strongbox.errors import QuotaExceeded
from strongbox.lease_records import counters, index, read_lease
from strongbox.lease_records.counters import Tally
from strongbox.lease_records.index import KEPT_MS
from strongbox.lease_records.read_lease import ACTIVE, EXPIRED, REVOKED, TTL_MS, Held, Reader, Record
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from tests.support.access import FakeCluster

MINUTE_MS = 60_000


class Leases(FakeCluster):
    """Reads by one token of one path."""

    def hold(
        self, token_expires_ms: int = 0, accessor: str = "me", path: str = "secret/a", **groups: str
    ) -> Held:
        named = storage.TokenRecord(accessor=accessor, **groups)  # type: ignore[arg-type]  # holder, quota
        reader = Reader(accessor, groups_of(named), token_expires_ms)
        done = self.store.run(lambda view: read_lease.hold(view, self.keys, reader, path))
        return cast("Held", done.value)

    def record(self, name: str) -> Record:
        found = read_lease.find(self.store.view(), self.keys, name)
        assert found is not None
        return found

    def revoke(self, name: str) -> None:
        self.store.run(lambda view: read_lease.revoke(view, self.keys, self.record(name)))

    def index(self) -> list[bytes]:
        return self.store.keys(keyspace.ROOT + b"lease/")


@pytest.fixture
def leases() -> Leases:
    return Leases()


def test_an_id_is_that_of_the_accessor_and_path_and_of_nothing_else() -> None:
    assert read_lease.lease_id("me", "secret/a") == read_lease.lease_id("me", "secret/a")
    others = {
        read_lease.lease_id(*pair) for pair in (("me", "secret/b"), ("you", "secret/a"), ("mes", "ecret/a"))
    }
    assert len(others | {read_lease.lease_id("me", "secret/a")}) == 4
    assert read_lease.is_lease_id(read_lease.lease_id("me", "secret/a"))


@pytest.mark.parametrize("text", ["", "r", "r" + "0" * 39, "r" + "0" * 41, "r" + "G" * 40, "../" + "0" * 38])
def test_what_is_no_id_is_known_by_its_form(text: str) -> None:
    assert not read_lease.is_lease_id(text)


def test_a_lease_stands_with_three_entries_that_lead_to_it_and_is_counted(leases: Leases) -> None:
    held = leases.hold()
    assert held.expires_ms == leases.store.now_ms + TTL_MS
    kinds = [key.split(b"/")[3] for key in leases.index()]
    assert kinds == [b"by-accessor", b"by-path", b"counts", b"counts", b"due", b"reads"]
    assert {index.name_in(key) for key in leases.index() if b"/counts/" not in key} == {held.id}


def test_an_hour_of_reads_writes_four_times_and_the_lease_never_runs_out(leases: Leases) -> None:
    writes, revision = 0, leases.store.revision
    for _ in range(60):
        held = leases.hold()
        assert held.expires_ms > leases.store.now_ms
        writes, revision = writes + (leases.store.revision != revision), leases.store.revision
        leases.store.now_ms += MINUTE_MS
    assert writes == 4
    assert len(leases.index()) == 6


@given(st.lists(st.integers(1, 400), max_size=30), st.integers(2, 400))
def test_a_short_token_that_is_renewed_never_gets_a_lease_that_is_over(gaps: list[int], ttl: int) -> None:
    leases = Leases()
    expires_ms = leases.store.now_ms + ttl * 1000
    for gap in gaps:
        held = leases.hold(expires_ms)
        assert leases.store.now_ms < held.expires_ms <= expires_ms
        leases.store.now_ms += gap * 1000
        expires_ms = max(expires_ms, leases.store.now_ms + ttl * 1000)


def test_a_lease_extended_is_the_same_and_one_that_ran_out_begins_anew(leases: Leases) -> None:
    start = leases.store.now_ms
    name = leases.hold().id
    leases.store.now_ms += TTL_MS // 2
    leases.hold()
    assert leases.record(name).issued_ms == start
    leases.store.now_ms += 2 * TTL_MS
    leases.hold()
    assert leases.record(name).issued_ms == leases.store.now_ms


def test_a_revoked_lease_is_kept_readable_and_due_in_a_day(leases: Leases) -> None:
    name = leases.hold().id
    leases.revoke(name)
    record = leases.record(name)
    assert read_lease.state_of(record, leases.store.now_ms) == REVOKED
    assert read_lease.due_ms(record) == leases.store.now_ms + KEPT_MS
    assert len(leases.index()) == 4
    leases.hold()
    assert read_lease.state_of(leases.record(name), leases.store.now_ms) == ACTIVE
    assert len(leases.index()) == 6


def test_revoking_the_revoked_keeps_the_first_moment(leases: Leases) -> None:
    name = leases.hold().id
    leases.revoke(name)
    first = leases.record(name).revoked_ms
    leases.store.now_ms += MINUTE_MS
    leases.revoke(name)
    assert leases.record(name).revoked_ms == first


def test_an_active_lease_is_expired_from_the_moment_it_names(leases: Leases) -> None:
    record = leases.record(leases.hold().id)
    assert read_lease.state_of(record, record.expires_ms - 1) == ACTIVE
    assert read_lease.state_of(record, record.expires_ms) == EXPIRED


def test_a_dropped_lease_leaves_nothing(leases: Leases) -> None:
    name = leases.hold().id
    tally = Tally()

    def drop(view: View) -> None:
        read_lease.drop(view, leases.record(name), tally)
        tally.settle(view)

    leases.store.run(drop)
    assert leases.index() == []


def test_what_is_revoked_while_nothing_may_grow_leaves_nothing(leases: Leases) -> None:
    name = leases.hold().id

    def revoke(view: View) -> Record:
        view.may_grow = lambda: False
        return read_lease.revoke(view, leases.keys, leases.record(name))

    told = leases.store.run(revoke)
    assert (cast("Record", told.value).revoked_ms, leases.index()) == (leases.store.now_ms, [])


def test_a_lease_copied_or_edited_in_etcd_is_absent_and_replaced(leases: Leases) -> None:
    held = leases.hold()
    key = keyspace.read_lease(held.id)
    copied = keyspace.read_lease(read_lease.lease_id("you", "secret/a"))
    value = leases.store.value(key) or b""
    leases.store.seed(copied, value)
    leases.store.seed(key, value[:-1] + bytes([value[-1] ^ 1]))
    for forged in (held.id, read_lease.lease_id("you", "secret/a")):
        assert read_lease.find(leases.store.view(), leases.keys, forged) is None
    leases.hold()
    assert leases.record(held.id).accessor == "me"


def test_leases_of_a_path_are_not_those_of_a_longer_one(leases: Leases) -> None:
    leases.hold(path="secret/a")
    leases.hold(path="secret/a/b")
    assert len(leases.store.keys(index.by_path_key("secret/a", ""))) == 1


@given(st.integers(0, 2**44), st.integers(0, 2**44))
def test_earlier_buckets_sort_before_later_ones(one: int, other: int) -> None:
    assert (index.due_bucket(one) < index.due_bucket(other)) == (
        one // index.BUCKET_MS < other // index.BUCKET_MS
    )


def test_a_lease_counts_against_its_tokens_quota_until_it_is_revoked(leases: Leases) -> None:
    held = leases.hold()
    key = counters.holder_key("token/me", held.id)
    assert counters.count(leases.store.view(), key) == 1
    leases.store.now_ms += TTL_MS // 2
    leases.hold()  # renewed, not counted again
    assert counters.count(leases.store.view(), key) == 1
    leases.revoke(held.id)
    assert leases.store.value(key) is None
    leases.hold()  # and when it is read again it lives again
    assert counters.count(leases.store.view(), key) == 1


def test_a_token_with_too_many_leases_gets_no_other_and_keeps_those_it_has(leases: Leases) -> None:
    held = leases.hold()
    leases.store.seed(counters.holder_key("token/me", held.id), b"%d" % counters.PER_PART)
    assert leases.hold().id == held.id
    other = next(
        f"secret/{n}" for n in range(500) if read_lease.lease_id("me", f"secret/{n}")[-1] == held.id[-1]
    )
    with pytest.raises(QuotaExceeded):
        leases.hold(path=other)
    assert leases.hold(accessor="you", path=other)


def test_ten_thousand_secrets_are_within_a_tokens_quota() -> None:
    parts = [counters.holder_key("token/me", read_lease.lease_id("me", f"secret/{n}")) for n in range(10_000)]
    assert max(parts.count(part) for part in set(parts)) < counters.PER_PART


def _counts(leases: Leases) -> dict[str, int]:
    """What is counted of each holder and group, all parts together."""
    found: dict[str, int] = {}
    prefix = keyspace.LEASE_COUNTS
    for key in leases.store.keys(prefix):
        name = key.removeprefix(prefix).decode().rpartition("/")[0]
        found[name] = found.get(name, 0) + int(leases.store.value(key) or b"0")
    return found


def test_children_and_further_logins_count_where_their_tokens_count(leases: Leases) -> None:
    """The root of the tree, and the credential that logged in: who makes tokens makes no room."""
    leases.hold(accessor="root", path="secret/a")
    child = leases.hold(accessor="child", path="secret/a", quota="token/root")
    assert _counts(leases) == {"token/root": 1, "token/child": 1, "all/token/root": 2}
    for login in ("first", "second"):
        leases.hold(accessor=login, holder="secret-id/one", quota="approles/web")
    leases.hold(accessor="third", holder="secret-id/other", quota="approles/web")
    told = _counts(leases)
    assert (told["secret-id/one"], told["secret-id/other"], told["all/approles/web"]) == (2, 1, 3)
    leases.revoke(child.id)
    assert _counts(leases)["all/token/root"] == 1
    for name in ("first", "second", "third"):
        leases.revoke(read_lease.lease_id(name, "secret/a"))
    assert set(_counts(leases)) == {"token/root", "all/token/root"}


def test_a_full_group_gives_its_children_no_lease_and_takes_none_from_others(leases: Leases) -> None:
    name = read_lease.lease_id("child", "secret/a")
    leases.store.seed(counters.group_key("token/root", name), b"%d" % counters.PER_GROUP_PART)
    with pytest.raises(QuotaExceeded, match="tree, user or role"):
        leases.hold(accessor="child", quota="token/root")
    assert leases.hold(accessor="child", quota="token/another")


def test_a_stolen_credential_takes_the_others_of_its_role_no_lease(leases: Leases) -> None:
    for name in ("thief", "again"):  # he logs in as often as he likes
        part = counters.holder_key("secret-id/stolen", read_lease.lease_id(name, "secret/a"))
        leases.store.seed(part, b"%d" % counters.PER_PART)
        with pytest.raises(QuotaExceeded, match="login"):
            leases.hold(accessor=name, holder="secret-id/stolen", quota="approles/web")
    assert leases.hold(accessor="honest", holder="secret-id/own", quota="approles/web")


def test_a_lease_of_an_earlier_version_stays_counted_where_it_was(leases: Leases) -> None:
    held = leases.hold()
    old = leases.record(held.id)
    before = Record()
    before.CopyFrom(old)
    before.ClearField("holder")
    before.ClearField("group")
    key = keyspace.read_lease(held.id)
    leases.store.seed(key, seal_record(leases.keys, key, before.SerializeToString(deterministic=True)))
    leases.store.seed(counters.group_key("token/me", held.id), None)
    leases.store.now_ms += TTL_MS // 2
    leases.hold()  # moved on
    assert _counts(leases) == {"token/me": 1}
    leases.revoke(held.id)
    assert _counts(leases) == {}
    leases.hold()  # begun anew
    assert _counts(leases) == {"token/me": 1, "all/token/me": 1}


def test_the_ids_of_a_group_fill_its_parts_alike() -> None:
    ids = [read_lease.lease_id(f"{n % 100}", f"secret/{n}") for n in range(50_000)]
    parts = [counters.group_key("approles/web", one) for one in ids]
    assert len(set(parts)) == counters.GROUP_PARTS
    assert max(parts.count(part) for part in set(parts)) < counters.PER_GROUP_PART
