"""Lost answers and late transactions, against real etcd: applied once, or of an outcome that nobody knows."""

from __future__ import annotations

import asyncio
import time

import pytest

from strongbox.errors import NoQuorum, UnknownOutcome
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.strongbox.store.decisions.replicas import increment, look, running
from tests.support.etcd import EtcdCluster
from tests.support.proxy import TcpProxy


async def test_a_lost_answer_is_looked_up_and_the_write_applied_once(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy, running([proxy.endpoint]) as replica:
        key = prefix + b"counter"
        assert await replica.act(increment(key)) == 1
        proxy.hold(up=False, down=True)  # the request arrives, its answer does not
        act = asyncio.create_task(replica.act(increment(key), seconds=20))
        while (row := await etcd.get(key)) is None or row.value != b"2":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        await proxy.cut()
        proxy.release()
        assert await act == 2
        assert await replica.act(increment(key)) == 3
        assert len(await replica.records()) == 3


async def test_a_transaction_that_arrives_after_its_own_retry_does_nothing(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    """The first attempt is kept back on the wire, the retry lands by another way, then the first arrives."""
    direct = etcd_member.endpoints[0]
    async with TcpProxy(direct) as slow, running([slow.endpoint, direct]) as replica:
        key = prefix + b"counter"
        for expected in (1, 2):
            assert await replica.act(increment(key)) == expected
        slow.hold(up=True, down=False)
        for expected in (3, 4, 5):
            assert await replica.act(increment(key), seconds=20) == expected
        assert slow.held.is_set()  # the late one really is on its way
        slow.release()
        await asyncio.sleep(0.5)
        row = await etcd.get(key)
        assert row is not None
        assert row.value == b"5"
        assert await replica.act(increment(key)) == 6
        assert len(await replica.records()) == 6


async def test_without_etcd_a_read_is_refused_and_a_sent_write_is_of_unknown_outcome_in_time(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy, running([proxy.endpoint]) as replica:
        key = prefix + b"k"
        assert await replica.act(increment(key)) == 1
        proxy.hold()
        started = time.monotonic()
        with pytest.raises(UnknownOutcome):
            await replica.act(increment(key), seconds=1.0)
        with pytest.raises(NoQuorum):
            await replica.act(look(key), seconds=1.0)
        assert time.monotonic() - started < 10
        await proxy.cut()
        proxy.release()
        found = await replica.act(increment(key), seconds=20)
        assert found in {2, 3}
        row = await etcd.get(key)
        assert row is not None
        assert int(row.value) == found


async def test_when_the_batchs_revision_is_compacted_the_outcome_is_unknown_never_a_redo(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy, running([proxy.endpoint]) as replica:
        key = prefix + b"counter"
        assert await replica.act(increment(key)) == 1
        proxy.hold(up=False, down=True)
        act = asyncio.create_task(replica.act(increment(key), seconds=20))
        while (row := await etcd.get(key)) is None or row.value != b"2":
            await asyncio.sleep(0.01)
        later = await etcd.transact(txn.txn([], [txn.put(prefix + b"x", b"")]), idempotent=True)
        await etcd.compact(later.header.revision)
        await proxy.cut()
        proxy.release()
        with pytest.raises(UnknownOutcome):
            await act
        row = await etcd.get(key)
        assert row is not None
        assert row.value == b"2"
        assert await replica.act(increment(key), seconds=20) == 3
