"""The duty that follows the markers of revoked tokens: they lose every lease, once, whatever came between."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from services.lease.duties import reaper_decisions
from services.lease.duties.reaper import Follower
from strongbox.access.authenticated_records import RecordKeys, seal_record
from strongbox.access.record_reader import Lookup
from strongbox.access.token_format import digest
from strongbox.access.token_groups import Groups
from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import SystemClock
from strongbox.errors import DependencyDown, Internal, StrongBoxError
from strongbox.lease_records import index, read_lease
from strongbox.storage.v1 import auth_records_pb2 as auth_storage
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.lease.support import Fence, Lease
from tests.support.etcd import EtcdCluster


def follower(lease: Lease) -> Follower:
    return Follower(cast("Any", lease.pipeline), lease.guard.lookup, cast("Any", None))


def mark(lease: Lease, token: str) -> None:
    """As services.auth leaves it when a token is revoked."""
    accessor = lease.accessor_of(token)
    lease.drop(token)
    lease.store.seed(keyspace.REVOKED + digest(token).encode(), accessor.encode())


async def test_a_lease_that_cannot_be_ended_keeps_no_other_of_revoked_tokens_alive(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = lease.reader(secret__ALL="read"), lease.reader(secret__ALL="read")
    names = [lease.hold(first, f"secret/{number}", ttl_s=600) for number in range(3)]
    other = lease.hold(second, "secret/other", ttl_s=600)
    for token in (first, second):
        mark(lease, token)
    end_held = reaper_decisions.end_held

    def spoilt(view: Any, fence: Any, keys: Any, entries: Any) -> None:
        if any(index.name_in(entry) == names[1] for entry in entries):
            raise Internal
        end_held(view, fence, keys, entries)

    monkeypatch.setattr(reaper_decisions, "end_held", spoilt)
    await follower(lease).catch_up(lease.fence)
    assert [lease.state(name) for name in (*names, other)] == ["REVOKED", "ACTIVE", "REVOKED", "REVOKED"]


async def test_a_revoked_token_loses_every_lease_and_nobody_else_does(lease: Lease) -> None:
    token, other = lease.reader(secret__ALL="read"), lease.reader(secret__ALL="read")
    names = [lease.hold(token, f"secret/{number}") for number in range(reaper_decisions.SLICE + 3)]
    kept = lease.hold(other, "secret/0")
    mark(lease, token)
    await follower(lease).catch_up(lease.fence)
    assert {lease.state(name) for name in names} == {"REVOKED"}
    assert lease.state(kept) == "ACTIVE"


async def test_markers_are_followed_once_with_a_cursor(lease: Lease) -> None:
    token = lease.reader(secret__a="read")
    lease.hold(token, "secret/a")
    mark(lease, token)
    await follower(lease).catch_up(lease.fence)
    writes = lease.pipeline.writes
    await follower(lease).catch_up(lease.fence)
    assert lease.pipeline.writes <= writes + 1  # the cursor alone
    value = lease.store.value(keyspace.LEASES_FOLLOWED) or b""
    assert storage.MarkerCursor.FromString(value).revision > 0


async def test_more_markers_than_a_slice_are_all_followed(lease: Lease) -> None:
    held = []
    for number in range(reaper_decisions.SLICE + 5):
        token = lease.reader(secret__ALL="read")
        held.append(lease.hold(token, f"secret/{number}"))
        mark(lease, token)
    await follower(lease).catch_up(lease.fence)
    assert {lease.state(name) for name in held} == {"REVOKED"}


async def test_a_marker_that_is_junk_does_not_keep_others_from_being_followed(lease: Lease) -> None:
    token = lease.reader(secret__ALL="read")
    name = lease.hold(token, "secret/a")
    lease.store.seed(keyspace.REVOKED + b"0" * 64, b"\xff\xfe")
    mark(lease, token)
    await follower(lease).catch_up(lease.fence)
    assert lease.state(name) == "REVOKED"


class Noting(Fence):
    """A term that counts how often it is told of progress."""

    told = 0

    def progress(self) -> None:
        self.told += 1


async def test_reading_many_markers_is_progress_long_before_the_end(lease: Lease) -> None:
    for number in range(reaper_decisions.SLICE + 5):
        lease.store.seed(keyspace.REVOKED + f"{number:064}".encode(), f"accessor-{number}".encode())
    term = Noting()
    await follower(lease).catch_up(term)
    assert term.told > reaper_decisions.SLICE


async def test_a_pass_is_progress_although_one_entry_cannot_be_settled_and_later_markers_are_followed(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, later = lease.reader(secret__ALL="read"), lease.reader(secret__ALL="read")
    stuck, other = [lease.hold(token, "secret/a", ttl_s=600) for token in (first, later)]
    end_held = reaper_decisions.end_held

    def spoilt(view: Any, fence: Any, keys: Any, entries: Any) -> None:
        if any(index.name_in(entry) == stuck for entry in entries):
            raise DependencyDown
        end_held(view, fence, keys, entries)

    monkeypatch.setattr(reaper_decisions, "end_held", spoilt)
    duty, term = follower(lease), Noting()
    mark(lease, first)
    seen = await duty.catch_up(term)
    told = passes_end_with_progress(duty, monkeypatch)
    seen = await duty.catch_up(term, beyond=seen)
    mark(lease, later)
    await duty.catch_up(term, beyond=seen)
    assert told == ["progress", "progress"]
    assert (lease.state(stuck), lease.state(other)) == ("ACTIVE", "REVOKED")


def passes_end_with_progress(duty: Follower, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes for each end of a pass whether it told of progress."""
    told: list[str] = []
    follow_to = duty._follow_to

    async def noting(term: Any, revision: int) -> None:
        before = term.told
        await follow_to(term, revision)
        told.append("progress" if term.told > before else "nothing")

    monkeypatch.setattr(duty, "_follow_to", noting)
    return told


async def test_a_record_of_a_key_term_that_never_was_holds_up_nobody(lease: Lease) -> None:
    """As a service that may write read leases, but has no newer key, could leave it there."""
    token = lease.reader(secret__ALL="read")
    forged, other = lease.hold(token, "secret/a", ttl_s=600), lease.hold(token, "secret/b", ttl_s=600)
    record = auth_storage.AuthenticatedRecord.FromString(
        lease.store.value(keyspace.read_lease(forged)) or b""
    )
    record.term = 99
    lease.store.seed(keyspace.read_lease(forged), record.SerializeToString())
    mark(lease, token)
    await follower(lease).catch_up(lease.fence)
    assert lease.state(other) == "REVOKED"
    assert lease.store.run(lambda view: reaper_decisions.followed(view, lease.fence)).value > 0


async def test_a_record_of_the_term_in_use_waits_for_its_key(lease: Lease) -> None:
    token = lease.reader(secret__ALL="read")
    name = lease.hold(token, "secret/a", ttl_s=600)
    key = keyspace.read_lease(name)
    record = auth_storage.AuthenticatedRecord.FromString(lease.store.value(key) or b"")
    newer = RecordKeys({**lease.keys.by_term, 2: b"n" * 32}, 2)
    lease.store.seed(key, seal_record(newer, key, record.body))
    lease.store.seed(keyspace.SEAL_STATE, b"unsealed:1:2")
    mark(lease, token)
    duty = follower(lease)
    seen = await duty.catch_up(lease.fence)
    assert lease.store.run(lambda view: reaper_decisions.followed(view, lease.fence)).value == 0
    lease.source.record_keys = lease.keys = newer
    await duty.catch_up(lease.fence, beyond=seen)
    assert lease.state(name) == "REVOKED"


async def test_the_cursor_never_goes_back(lease: Lease) -> None:
    for revision in (50, 40):
        lease.store.run(lambda view, at=revision: reaper_decisions.follow_to(view, lease.fence, at))  # type: ignore[misc]
    assert lease.store.run(lambda view: reaper_decisions.followed(view, lease.fence)).value == 50


# with etcd ----------------------------------------------------------------------------------------


@pytest.fixture
async def etcd(etcd_member: EtcdCluster) -> AsyncIterator[Etcd]:
    client = Etcd(etcd_member.endpoints)
    yield client
    await client.close()


async def test_a_token_revoked_while_the_duty_watches_loses_its_lease(lease: Lease, etcd: Etcd) -> None:
    pipeline = Pipeline(etcd, Memory(), Outbox("lease"), SystemClock())
    await pipeline.start()
    name = read_lease.lease_id("watched", "secret/a")
    reader = read_lease.Reader("watched", Groups("token/watched", "token/watched"), 0)
    await pipeline.submit(
        Work(
            lambda view: read_lease.hold(view, lease.keys, reader, "secret/a"),
            None,
            time.monotonic() + 5,
        )
    )
    duty = Follower(pipeline, Lookup(lease.source), etcd)
    task = asyncio.create_task(duty.work(Fence()))
    try:
        await asyncio.sleep(0.3)
        marker = txn.put(keyspace.REVOKED + b"watched-digest", b"watched")
        await etcd.transact(txn.txn([], [marker]), idempotent=True)
        assert await revoked(lease, etcd, name)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await pipeline.close()


async def revoked(lease: Lease, etcd: Etcd, name: str) -> bool:
    """Whether the lease is revoked within 5 s."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        row = await etcd.get(keyspace.read_lease(name))
        assert row is not None
        lease.store.seed(row.key, row.value)
        if lease.state(name) == "REVOKED":
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.parametrize("reason", [DependencyDown, Internal])
async def test_a_marker_is_passed_only_when_all_its_leases_have_been_told_to_end(
    lease: Lease, monkeypatch: pytest.MonkeyPatch, reason: type[StrongBoxError]
) -> None:
    """The key of a record may arrive late: its lease must end all the same, and hold up no other."""
    tokens = [lease.reader(secret__ALL="read") for _ in range(2)]
    late, other = [lease.hold(token, "secret/a", ttl_s=600) for token in tokens]
    for token in tokens:
        mark(lease, token)
    end_held = reaper_decisions.end_held

    def waiting(view: Any, fence: Any, keys: Any, entries: Any) -> None:
        if any(index.name_in(entry) == late for entry in entries):
            raise reason()
        end_held(view, fence, keys, entries)

    duty = follower(lease)
    with monkeypatch.context() as patched:
        patched.setattr(reaper_decisions, "end_held", waiting)
        seen = await duty.catch_up(lease.fence)
        seen = await duty.catch_up(lease.fence, beyond=seen)
    assert (lease.state(late), lease.state(other)) == ("ACTIVE", "REVOKED")
    assert lease.store.run(lambda view: reaper_decisions.followed(view, lease.fence)).value == 0
    await duty.catch_up(lease.fence, beyond=seen)
    assert lease.state(late) == "REVOKED"
    assert lease.store.run(lambda view: reaper_decisions.followed(view, lease.fence)).value > 0
