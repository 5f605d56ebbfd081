"""How full etcd is is said to everybody, and room is won back with nobody's help: real etcd, small quotas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.endpoints import Options
from strongbox.store.etcd.errors import OutOfSpace
from strongbox.store.space import room_keeper
from strongbox.store.space.admission import Effect, Room, Space
from strongbox.store.space.defragment import Defragmenter
from strongbox.store.space.room_keeper import Keeper, Measured
from tests.support.etcd import EtcdCluster

_MIB = 1 << 20
_QUOTA = 16 * _MIB


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_keeper, "LOOK_BACK", 0.0)
    monkeypatch.setattr(room_keeper, "LOOK_BACK_TIGHT", 0.0)
    monkeypatch.setattr(room_keeper, "COMPACT_EVERY", 0.0)
    monkeypatch.setattr(room_keeper, "SPACING", 0.0)
    monkeypatch.setattr(room_keeper, "SPACING_FULL", 0.0)
    monkeypatch.setattr(room_keeper, "PERIOD", 0.0)


@pytest.fixture
async def small() -> AsyncIterator[Etcd]:
    with EtcdCluster(1, extra=[f"--quota-backend-bytes={_QUOTA}"]) as cluster:
        etcd = Etcd(cluster.endpoints, options=Options(attempt=10.0, total=20.0))
        yield etcd
        await etcd.close()


async def _put(etcd: Etcd, size: int, key: bytes = b"/one/key") -> None:
    await etcd.transact(txn.txn([], [txn.put(key, bytes(size))]), idempotent=True)


async def _fill(etcd: Etcd) -> None:
    while True:
        await _put(etcd, _MIB)


def _keeper(etcd: Etcd, quota: int = _QUOTA, node: str = "one") -> Keeper:
    members = [member.address for member in etcd.ring.members]
    return Keeper(etcd, members, quota, node, Defragmenter(etcd, members))


async def _looked(keeper: Keeper) -> Measured:
    await asyncio.sleep(0.3)  # etcd counts its file every 100 ms
    measured = await keeper.look()
    assert measured is not None
    return measured


def _refused(told: Measured, effect: Effect, quota: int = _QUOTA) -> bool:
    return Space(quota).refuses(effect, Room(told.revision, told.file, told.in_use, quota, ""))


async def _said(etcd: Etcd) -> Room:
    row = await etcd.get(keyspace.ROOM)
    assert row is not None
    return Room.parse(row.key, row.value)


async def test_history_makes_room_before_the_space_is_used_up(small: Etcd) -> None:
    keeper = _keeper(small)
    for _ in range(13):
        await _put(small, _MIB)
    before = await _looked(keeper)
    assert _refused(before, Effect.GROWS)
    assert (await _said(small)).in_use == before.in_use
    after = await keeper.make_room(before)
    assert after.in_use < 4 * _MIB
    assert after.file < 0.7 * _QUOTA
    assert not _refused(after, Effect.GROWS)


async def test_what_history_cannot_give_back_keeps_growth_refused(small: Etcd) -> None:
    keeper = _keeper(small, 2 * _MIB)
    await _put(small, _MIB)
    await _put(small, _MIB // 2, b"/another")
    after = await keeper.make_room(await _looked(keeper))
    assert _refused(after, Effect.GROWS, 2 * _MIB)
    assert not _refused(after, Effect.FREES, 2 * _MIB)


async def test_after_the_alarm_etcd_takes_writes_again(small: Etcd) -> None:
    with pytest.raises(OutOfSpace):
        await _fill(small)
    assert await small.is_full()
    keeper = _keeper(small)
    after = await keeper.make_room(await _looked(keeper))
    assert not after.full
    assert not _refused(after, Effect.GROWS)
    await _put(small, 10)


async def test_how_full_it_is_is_said_while_the_alarm_is_raised(small: Etcd) -> None:
    with pytest.raises(OutOfSpace):
        await _fill(small)
    measured = await _looked(_keeper(small))
    assert measured.full
    assert (await _said(small)).file == measured.file


async def test_after_an_alarm_what_frees_goes_on_though_little_was_won(small: Etcd) -> None:
    for number in range(12):
        await _put(small, _MIB, b"/live/%d" % number)
    with pytest.raises(OutOfSpace):
        await _fill(small)
    keeper = _keeper(small)
    after = await keeper.make_room(await _looked(keeper))
    assert not after.full
    assert _refused(after, Effect.GROWS)
    await small.transact(txn.txn([], [txn.put(b"/cursor", b"x"), txn.delete(b"/live/", b"/live0")]))
    after = await keeper.make_room(await _looked(keeper))
    assert not _refused(after, Effect.GROWS)


async def test_one_replica_measures_and_another_takes_over_when_it_stops(
    small: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = _keeper(small), _keeper(small, node="two")
    assert await one.look() is not None
    assert await two.look() is None
    assert await one.look() is not None
    assert await two.look() is None
    assert (await _said(small)).keeper == "one"
    monkeypatch.setattr(room_keeper, "TAKE_OVER", 0.0)
    assert await two.look() is not None
    assert (await _said(small)).keeper == "two"


async def test_a_member_that_is_down_does_not_hide_the_others() -> None:
    with EtcdCluster(3) as cluster:
        etcd = Etcd(cluster.endpoints)
        cluster.members[0].kill()
        measured = None
        while measured is None:
            measured = await _keeper(etcd).look()
        assert measured.in_use > 0
        await etcd.close()
