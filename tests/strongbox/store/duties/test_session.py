"""A session that believes in itself less long than etcd does, and comes back under a new id."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from strongbox.store.duties.session import Session, Tenure
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import OutOfSpace
from tests.support.etcd import EtcdCluster
from tests.support.proxy import TcpProxy


@asynccontextmanager
async def session(etcd: Etcd, key: bytes, ttl: int = 1, refresh: float = 5.0) -> AsyncIterator[Session]:
    """A started session whose value is random each time it is written."""
    one = Session(etcd, key, lambda: secrets.token_bytes(8), ttl, refresh=refresh)
    await one.start()
    try:
        yield one
    finally:
        await one.close()


async def lease_of(etcd: Etcd, key: bytes) -> int:
    """The etcd lease the key is under; 0 when it is absent."""
    row = await etcd.get(key)
    return row.lease if row else 0


async def test_a_session_outlives_its_ttl_and_is_gone_at_once_when_closed(etcd: Etcd, prefix: bytes) -> None:
    async with session(etcd, prefix) as one:
        assert one.lease_id == 0
        assert not one.alive
        tenure = await one.current()
        await asyncio.sleep(3.5)
        assert one.alive
        assert await lease_of(etcd, prefix) == one.lease_id == tenure.lease
    assert tenure.lost.is_set()
    assert await etcd.get(prefix) is None
    assert (one.alive, one.lease_id) == (False, 0)


async def test_the_value_is_written_again_and_again(etcd: Etcd, prefix: bytes) -> None:
    async with session(etcd, prefix, refresh=0.1) as one:
        await one.current()
        first = await etcd.get(prefix)
        await asyncio.sleep(1.5)
        second = await etcd.get(prefix)
    assert first is not None
    assert second is not None
    assert (first.lease, first.create_revision) == (second.lease, second.create_revision)
    assert first.value != second.value


async def test_a_value_that_changed_is_written_at_once(etcd: Etcd, prefix: bytes) -> None:
    async with session(etcd, prefix, ttl=30) as one:
        tenure = await one.current()
        seen = set()
        for _ in range(3):
            row = await etcd.get(prefix)
            assert row is not None
            seen.add(row.value)
            one.write_now()
            await asyncio.sleep(0.2)
        assert len(seen) == 3
        assert one.lease_id == tenure.lease


async def test_a_revoked_lease_ends_the_tenure_and_another_is_granted(etcd: Etcd, prefix: bytes) -> None:
    async with session(etcd, prefix, refresh=0.2) as one:
        old = await one.current()
        await etcd.lease_revoke(old.lease)
        await asyncio.wait_for(old.lost.wait(), 10)
        new = await asyncio.wait_for(one.current(), 10)
        assert new.lease != old.lease
        assert await lease_of(etcd, prefix) == new.lease


async def test_a_cut_off_process_stops_believing_before_etcd_deletes_its_key(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        cut_off = Etcd([proxy.endpoint])
        async with session(cut_off, prefix) as one:
            old = await one.current()
            proxy.hold()
            await asyncio.wait_for(old.lost.wait(), 10)
            assert not one.alive
            assert await lease_of(etcd, prefix) == old.lease, "etcd was quicker than our own clock"
            await asyncio.sleep(2.0)
            assert await lease_of(etcd, prefix) != old.lease
            proxy.release()
            new = await asyncio.wait_for(one.current(), 20)
            assert new.lease != old.lease
            assert await lease_of(etcd, prefix) == new.lease
        await cut_off.close()


async def test_the_death_of_a_member_does_not_end_a_session_of_two_seconds(
    etcd_cluster: EtcdCluster, three: Etcd, prefix: bytes
) -> None:
    async with session(three, prefix, ttl=2) as one:
        tenure = await one.current()
        in_use = etcd_cluster.endpoints.index(three.ring.pick().address)
        followers = [i for i in range(3) if i != in_use]
        etcd_cluster.members[followers[0]].kill()
        await asyncio.sleep(4)
        assert await lease_of(three, prefix) == (await one.current()).lease
        assert tenure.lost.is_set() is (tenure.lease != one.lease_id)


async def test_a_session_starts_as_soon_as_etcd_can_be_reached(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        await proxy.cut(refuse=True)
        etcd = Etcd([proxy.endpoint])
        async with session(etcd, prefix) as one:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one.current(), 0.5)
            await proxy.accept()
            assert (await asyncio.wait_for(one.current(), 20)).alive
        await etcd.close()


async def test_validity_counts_from_before_the_request_and_ends_for_good() -> None:
    tenure = Tenure(7)
    assert not tenure.alive
    tenure.extend(time.monotonic() - 0.95, 1)
    assert not tenure.alive, "0.9 of a second had passed when the answer came"
    await asyncio.wait_for(tenure.lost.wait(), 5)
    tenure.extend(time.monotonic(), 60)
    assert not tenure.alive
    tenure.end()


async def test_a_defect_does_not_end_the_session_for_good(etcd: Etcd, prefix: bytes) -> None:
    values = iter([RuntimeError("a defect"), b"here"])

    def value() -> bytes:
        one = next(values, b"again")
        if isinstance(one, Exception):
            raise one
        return one

    one = Session(etcd, prefix, value, 1)
    await one.start()
    try:
        async with asyncio.timeout(20):
            await one.current()
    finally:
        await one.close()


async def test_a_value_that_cannot_be_written_again_does_not_end_the_session(
    etcd: Etcd, prefix: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with session(etcd, prefix, refresh=0.1) as one:
        tenure = await one.current()

        async def refuse(*_: object, **__: object) -> None:
            raise OutOfSpace("etcd's space is used up")

        monkeypatch.setattr(etcd, "transact", refuse)
        await asyncio.sleep(2.5)
        assert tenure.alive
