"""Defragmenting: one member at a time, whoever asks for it, however full etcd is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import OutcomeUnknown, OutOfSpace, Unavailable
from strongbox.store.space import defragment
from strongbox.store.space.defragment import Busy, Defragmenter
from tests.support.etcd import EtcdCluster


class Members(Etcd):
    """The members' keys are real; how long they take to be defragmented is said here."""

    slow: str = ""
    down: str = ""
    under_way: list[str]
    done: list[str]
    finish: asyncio.Event

    async def probe(self, endpoint: str, *, timeout: float) -> None:
        if endpoint == self.down:
            raise Unavailable("down")
        if endpoint in self.under_way:
            raise OutcomeUnknown("hangs")
        await asyncio.sleep(0.005)  # meanwhile another one may be told the same

    async def defragment(self, endpoint: str, *, timeout: float = 0.0) -> None:
        if endpoint == self.down:
            raise Unavailable("down")
        assert not self.under_way, "two members at once"
        self.under_way.append(endpoint)
        if endpoint == self.slow:
            asyncio.get_running_loop().create_task(self._go_on(endpoint))
            raise OutcomeUnknown("deadline")
        await asyncio.sleep(0.05)
        self.under_way.remove(endpoint)
        self.done.append(endpoint)

    async def _go_on(self, endpoint: str) -> None:
        await self.finish.wait()
        self.under_way.remove(endpoint)
        self.done.append(endpoint)


NAMES = ("m1", "m2", "m3")


@pytest.fixture
async def members(etcd_member: EtcdCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Members]:
    monkeypatch.setattr(defragment, "PAUSE", 0.02)
    made = Members(etcd_member.endpoints)
    made.under_way, made.done, made.finish = [], [], asyncio.Event()
    yield made
    await made.transact(txn.txn([], [txn.delete(keyspace.DEFRAGMENTING)]), idempotent=True)
    await made.close()


async def test_replicas_that_begin_together_defragment_one_member_at_a_time(members: Members) -> None:
    await asyncio.gather(Defragmenter(members, NAMES).run(), Defragmenter(members, NAMES).run())
    assert members.done == [*NAMES, *NAMES]
    assert await members.get(keyspace.DEFRAGMENTING) is None


@pytest.mark.parametrize("slow", ["m1", "m3"])
async def test_a_member_that_takes_longer_than_its_deadline_is_waited_for(
    members: Members, slow: str
) -> None:
    members.slow = slow
    running = asyncio.create_task(Defragmenter(members, NAMES).run())
    while members.under_way != [slow]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert members.under_way == [slow] and not running.done()
    members.finish.set()
    await running
    assert members.done == list(NAMES)


async def test_a_member_that_hangs_is_a_reason_to_wait_whoever_has_the_turn(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defragment, "PATIENCE", 0.2)
    members.under_way = ["m3"]
    with pytest.raises(Busy):
        await Defragmenter(members, NAMES).run()
    assert members.done == []


async def test_a_member_that_is_down_keeps_nobody_waiting(members: Members) -> None:
    members.down = "m2"
    await Defragmenter(members, NAMES).run()
    assert members.done == ["m1", "m3"]


async def test_a_turn_that_stands_still_is_taken_over(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defragment, "STALE", 0.1)
    await members.transact(txn.txn([], [txn.put(keyspace.DEFRAGMENTING, b"gone")]), idempotent=True)
    await Defragmenter(members, NAMES).run()
    assert members.done == list(NAMES)


async def test_turns_are_taken_while_etcd_is_full() -> None:
    with EtcdCluster(1, extra=["--quota-backend-bytes=8388608"]) as cluster:
        etcd = Etcd(cluster.endpoints)
        with suppress(OutOfSpace):
            while True:
                await etcd.transact(txn.txn([], [txn.put(b"/x", bytes(1 << 20))]), idempotent=True)
        assert await etcd.is_full()
        await Defragmenter(etcd, cluster.endpoints).run()
        await etcd.close()
