"""The purge duty: with fakes for its decisions, with real etcd for what a revision still shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, cast

import pytest

from services.kv import purge_duty
from services.kv.purge_duty import History, Purge
from services.kv.repository import Repository
from strongbox.clock import ManualClock
from strongbox.errors import Internal, NotFound
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.storage.v1 import auth_records_pb2
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import Row, View
from strongbox.store.etcd import errors, txn
from strongbox.store.etcd.client import Etcd
from tests.services.kv.support import Kv
from tests.support.etcd import EtcdCluster


class Fence:
    """A term that lasts, or is over."""

    over = False

    def require(self, view: View, /) -> None:
        if self.over:
            raise PermissionError("deposed")

    def progress(self) -> None:
        """Nobody looks."""


class FakeUpkeep:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.compacted: list[int] = []
        self.defragmented = 0

    async def compact(self, revision: int, *, physical: bool = True) -> None:
        self.compacted.append(revision)

    async def defragment(self) -> None:
        self.defragmented += 1


class Duty:
    """A kv service, its purge duty and the time both go by."""

    def __init__(self, kv: Kv) -> None:
        self.kv, self.upkeep, self.fence = kv, FakeUpkeep(), Fence()
        self.clock = ManualClock(kv.store.now_ms)
        self.secrets = Repository(kv.guard.lookup)
        self.purge = Purge(
            cast("Any", kv.pipeline), self.secrets, self.upkeep, self.upkeep.defragment, self.clock
        )

    async def after(self, seconds: float) -> int:
        self.clock.advance(seconds)
        self.kv.store.now_ms = self.clock.now_ms()
        self.kv.store.seed(keyspace.CLUSTER_TIME, b"%020d" % self.kv.store.now_ms)
        return await self.purge.one_pass(self.fence)


@pytest.fixture
def duty(kv: Kv) -> Duty:
    return Duty(kv)


async def test_what_was_destroyed_is_compacted_away_and_then_said_to_be_purged(duty: Duty) -> None:
    await duty.kv.write()
    await duty.kv.change("Destroy", 1)
    revision = duty.kv.store.revision
    assert await duty.after(9) == 0
    assert not (await duty.kv.metadata()).versions[0].HasField("purged_at")
    assert await duty.after(2) == 1
    assert duty.upkeep.compacted == [revision]
    assert duty.upkeep.defragmented == 1
    assert (await duty.kv.metadata()).versions[0].HasField("purged_at")
    assert duty.kv.store.keys(keyspace.KV_PURGES) == []


async def test_destroyed_any_time_it_is_purged_within_a_minute(duty: Duty) -> None:
    await duty.kv.write()
    for number in range(1, 30):
        await duty.kv.write()
        await duty.kv.change("Destroy", number)
        for _ in range(2):
            await duty.after(purge_duty.PAUSE)
    now = duty.kv.store.now_ms
    for version in duty.kv.head().versions:
        if version.destroyed_ms and now - version.destroyed_ms > 40_000:
            assert 0 < version.purged_ms - version.destroyed_ms <= 40_000


async def test_however_many_were_destroyed_one_compaction_serves_them_all(duty: Duty) -> None:
    for number in range(2 * purge_duty.SLICE + 3):
        await duty.kv.write(f"s/{number}")
        await duty.kv.change("Destroy", 1, path=f"s/{number}")
    assert await duty.after(11) == 2 * purge_duty.SLICE + 3
    assert len(duty.upkeep.compacted) == 1
    assert duty.kv.store.keys(keyspace.KV_PURGES) == []


async def test_a_deposed_holder_says_nothing_is_purged(duty: Duty) -> None:
    await duty.kv.write()
    await duty.kv.change("Destroy", 1)
    duty.fence.over = True
    with pytest.raises(PermissionError):
        await duty.after(11)
    assert len(duty.kv.store.keys(keyspace.KV_PURGES)) == 1


async def test_a_request_renewed_since_it_was_read_waits(duty: Duty) -> None:
    await duty.kv.write()
    await duty.kv.change("Destroy", 1)
    (key,) = duty.kv.store.keys(keyspace.KV_PURGES)
    old = duty.kv.store.facts[key].mod_revision
    duty.kv.store.seed(key, duty.kv.store.value(key))
    duty.kv.store.run(lambda view: purge_duty.settle(view, duty.fence, duty.secrets, key, old))
    assert duty.kv.store.keys(keyspace.KV_PURGES) == [key]
    assert not (await duty.kv.metadata()).versions[0].HasField("purged_at")


async def test_a_removed_secret_is_purged_and_forgotten(duty: Duty) -> None:
    await duty.kv.write()
    await duty.kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path="a"))
    assert await duty.after(11) == 1
    assert duty.kv.store.keys(keyspace.ROOT + b"kv/") == []


async def test_purging_leaves_operations_their_revisions(duty: Duty) -> None:
    await duty.kv.write()
    first = await duty.kv.change("Destroy", 1, key="k")
    await duty.after(11)
    assert await duty.kv.change("Destroy", 1, key="k") == first


async def test_a_holder_whose_clock_is_ahead_purges_nothing_early(duty: Duty) -> None:
    await duty.kv.write()
    await duty.kv.change("Destroy", 1)
    duty.clock.jump(3600)
    assert await duty.purge.one_pass(duty.fence) == 0
    duty.kv.store.seed(keyspace.CLUSTER_TIME, b"%020d" % duty.kv.store.now_ms)
    assert await duty.purge.one_pass(duty.fence) == 0
    assert duty.upkeep.compacted == []


async def test_a_head_that_nobody_can_read_holds_up_no_other(duty: Duty) -> None:
    for path in ("a", "b"):
        await duty.kv.write(path)
        await duty.kv.change("Destroy", 1, path=path)
    duty.kv.store.seed(keyspace.head("a"), b"\xff\xff\xff\xff")
    assert await duty.after(11) == 2
    assert duty.kv.store.keys(keyspace.KV_PURGES) == []
    assert (await duty.kv.metadata("b")).versions[0].HasField("purged_at")


async def test_a_head_of_a_key_term_that_never_was_holds_up_no_other(duty: Duty) -> None:
    for path in ("a", "b"):
        await duty.kv.write(path)
        await duty.kv.change("Destroy", 1, path=path)
    forged = auth_records_pb2.AuthenticatedRecord(term=99, body=b"", mac=bytes(32)).SerializeToString()
    duty.kv.store.seed(keyspace.head("a"), forged)
    assert await duty.after(11) == 2
    assert duty.kv.store.keys(keyspace.KV_PURGES) == []
    assert (await duty.kv.metadata("b")).versions[0].HasField("purged_at")
    with pytest.raises(Internal):
        await duty.kv.metadata("a")


def test_history_is_compacted_every_half_minute_and_kept_for_a_minute() -> None:
    history, targets = History(), {}
    for second in range(0, 300, 2):
        history.note(float(second), second * 10)
        target = history.due(float(second))
        if target is not None:
            targets[second] = target
    assert all(target <= (second - 60) * 10 for second, target in targets.items())
    moments = list(targets)
    assert moments[0] == 60
    assert all(later - earlier >= 30 for earlier, later in pairwise(moments))


# with etcd ----------------------------------------------------------------------------------------


@pytest.fixture
async def etcd(etcd_member: EtcdCluster) -> AsyncIterator[Etcd]:
    client = Etcd(etcd_member.endpoints)
    yield client
    await client.close()


async def test_compacting_to_the_revision_of_the_destroy_leaves_no_revision_that_shows_it(etcd: Etcd) -> None:
    """The rule the duty rests on, for a value replaced and for one deleted."""
    replaced, deleted = b"/test/purge/replaced", b"/test/purge/deleted"
    puts = [txn.put(replaced, b"canary"), txn.put(deleted, b"canary")]
    first = await etcd.transact(txn.txn([], puts), idempotent=True)
    destroy = [txn.put(replaced, b"-"), txn.delete(deleted)]
    revision = (await etcd.transact(txn.txn([], destroy), idempotent=True)).header.revision
    await etcd.transact(txn.txn([], [txn.put(b"/test/purge/later", b"")]), idempotent=True)
    await etcd.compact(revision)
    for past in (first.header.revision, revision - 1):
        with pytest.raises(errors.Compacted):
            await etcd.range(replaced, revision=past)
    rows = (await etcd.range(b"/test/purge/", b"/test/purge0", revision=revision)).rows
    assert [(row.key, row.value) for row in rows] == [(replaced, b"-")]
    await etcd.defragment(etcd.ring.members[0].address, timeout=10)


async def test_not_found_is_what_a_removed_secret_is(duty: Duty) -> None:
    await duty.kv.write()
    await duty.kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path="a"))
    with pytest.raises(NotFound):
        await duty.kv.read()


def test_a_request_that_nobody_can_read_holds_up_no_other() -> None:
    sound = storage.PurgeRecord(path="a", at_ms=1).SerializeToString()
    rows = [Row(b"junk", b"\xff\xff\xff", 5, 5), Row(b"sound", sound, 6, 6)]
    assert [row.key for row in purge_duty.ripe(rows, 10**9)] == [b"sound"]
