"""Room in etcd is won back with nobody's help, in a real member with a small quota."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.kv import room
from services.kv.room import Room
from strongbox.errors import Overloaded
from strongbox.store import txn
from strongbox.store.client import Etcd, MemberStatus
from strongbox.store.errors import OutOfSpace, Unavailable
from tests.support.etcd import EtcdCluster

_MIB = 1 << 20
_QUOTA = 16 * _MIB


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SPREAD", 0.0)
    monkeypatch.setattr(room, "LOOK_BACK", 0.0)


@pytest.fixture
async def small() -> AsyncIterator[Etcd]:
    with EtcdCluster(1, extra=[f"--quota-backend-bytes={_QUOTA}"]) as cluster:
        etcd = Etcd(cluster.endpoints)
        yield etcd
        await etcd.close()


async def _put(etcd: Etcd, size: int) -> None:
    await etcd.transact(txn.txn([], [txn.put(b"/one/key", bytes(size))]), idempotent=True)


async def _fill(etcd: Etcd) -> None:
    while True:
        await _put(etcd, _MIB)


def _room(etcd: Etcd, quota: int = _QUOTA) -> Room:
    return Room(etcd, [member.address for member in etcd.ring.members], quota)


async def test_writes_are_refused_before_the_space_is_used_up_and_history_makes_room(small: Etcd) -> None:
    kept = _room(small)
    for _ in range(12):
        await _put(small, _MIB)
    await kept.look()  # notices, and compacts eleven old values away
    assert not kept.is_low
    kept.require()
    assert (await small.status(small.ring.members[0].address)).db_size < 0.7 * _QUOTA


async def test_what_history_cannot_give_back_keeps_writes_refused(small: Etcd) -> None:
    kept = _room(small, 2 * _MIB)
    await _put(small, int(1.4 * _MIB))
    await asyncio.sleep(0.3)  # etcd writes its file every 100 ms
    await kept.look()
    assert kept.is_low
    with pytest.raises(Overloaded, match="nearly used up"):
        kept.require()


async def test_after_the_alarm_etcd_takes_writes_again(small: Etcd) -> None:
    with pytest.raises(OutOfSpace):
        await _fill(small)
    assert await small.is_full()
    kept = _room(small)
    await kept.look()
    assert not await small.is_full()
    assert not kept.is_low
    await _put(small, 10)


async def test_after_an_alarm_all_but_writes_of_secrets_goes_on_though_little_was_won(small: Etcd) -> None:
    """At 70 % or more of live data: removing, destroying and trimming are how room is made."""
    for number in range(12):
        await small.transact(txn.txn([], [txn.put(b"/live/%d" % number, bytes(_MIB))]), idempotent=True)
    with pytest.raises(OutOfSpace):
        await _fill(small)
    kept = _room(small)
    await kept.look()
    assert not await small.is_full()
    assert kept.is_low
    await small.transact(txn.txn([], [txn.put(b"/small", b"x")]), idempotent=True)


async def test_a_member_that_is_down_does_not_hide_the_others() -> None:
    class Down:
        async def status(self, endpoint: str) -> MemberStatus:
            if endpoint == "down":
                raise Unavailable("down")
            return MemberStatus("3.5.30", 80, 1, 1, 5)

        async def is_full(self) -> bool:
            return False

        async def compact(self, revision: int) -> None:
            assert revision == 5

        async def defragment(self, endpoint: str, *, timeout: float) -> None:
            if endpoint == "down":
                raise Unavailable("down")

        async def disarm(self) -> int:
            raise AssertionError("there is no alarm")

    kept = Room(Down(), ["down", "up"], 100)
    await kept.look()
    assert kept.is_low
