"""The outbox's bound: refuses when full, takes again when trimmed."""

from __future__ import annotations

import asyncio

import pytest

from strongbox.audit_outbox.outbox_limit import Bound
from strongbox.errors import Overloaded
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd


def test_a_producer_is_stopped_at_its_own_bound_and_goes_on_when_trimmed() -> None:
    bound = Bound(own=10)
    for revision in range(1, 11):
        bound.require_room()
        bound.put(revision, 1, 100)
    with pytest.raises(Overloaded, match="outbox"):
        bound.require_room()
    bound.published(trimmed_to=3, backlog=7)
    bound.require_room()
    bound.put(11, 3, 300)
    with pytest.raises(Overloaded):
        bound.require_room()


def test_a_few_large_records_stop_a_producer_as_many_small_ones_do() -> None:
    bound = Bound(own_bytes=1000)
    bound.put(1, 1, 400)
    bound.require_room()
    bound.put(2, 1, 600)
    with pytest.raises(Overloaded, match="outbox"):
        bound.require_room()
    bound.published(trimmed_to=1, backlog=1)
    bound.require_room()


def test_everybodys_backlog_stops_a_producer_that_put_nothing() -> None:
    bound = Bound(everybody=100)
    bound.published(trimmed_to=0, backlog=100)
    with pytest.raises(Overloaded):
        bound.require_room()
    bound.published(trimmed_to=0, backlog=99)
    bound.require_room()


def test_a_few_large_records_of_everybody_stop_a_producer_that_put_nothing() -> None:
    bound = Bound(all_bytes=1000)
    bound.published(trimmed_to=0, backlog=3, size=1000)
    with pytest.raises(Overloaded, match="outbox"):
        bound.require_room()
    bound.published(trimmed_to=0, backlog=3, size=999)
    bound.require_room()


def test_batches_without_records_take_no_room() -> None:
    bound = Bound(own=1)
    bound.put(1, 0, 0)
    bound.require_room()


async def test_junk_where_the_duty_publishes_ends_no_following(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongbox.audit_outbox.outbox_limit.PERIOD", 0.05)
    bound = Bound(all_bytes=1000)
    following = asyncio.create_task(bound.follow(etcd))
    try:
        for value, is_full in ((_left(2000), True), (b"\xff\xff", True), (_left(10), False)):
            await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_BACKLOG, value)]), idempotent=True)
            async with asyncio.timeout(10):
                await asyncio.sleep(0.2)
                while bound.is_full != is_full:
                    assert not following.done()
                    await asyncio.sleep(0.01)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await etcd.transact(txn.txn([], [txn.delete(keyspace.AUDIT_BACKLOG)]), idempotent=True)


def _left(size: int) -> bytes:
    return storage.Backlog(records=2, bytes=size).SerializeToString()


async def test_what_the_duty_publishes_makes_room_again(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongbox.audit_outbox.outbox_limit.PERIOD", 0.05)
    bound = Bound(own=1)
    put = await etcd.transact(txn.txn([], [txn.put(b"/test/bound", b"")]), idempotent=True)
    bound.put(put.header.revision, 1, 100)
    following = asyncio.create_task(bound.follow(etcd))
    try:
        mark = storage.ChainPosition(size=1, hmac="", revision=put.header.revision).SerializeToString()
        await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_MARK, mark)]), idempotent=True)
        async with asyncio.timeout(10):
            while bound.is_full:
                await asyncio.sleep(0.01)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await etcd.transact(txn.txn([], [txn.delete(keyspace.AUDIT_MARK)]), idempotent=True)
