"""The audit duty on a real etcd: only what is durable is trimmed, and nothing without the fence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.audit.duties.audit_duty import (
    Diverged,
    Seen,
    Trimming,
    deletions_up_to,
    target_of,
)
from services.audit.duties.outbox_backlog import Measuring
from services.audit.following.replica import BEGINNING, Position, Replica
from strongbox.audit_log.chain import GENESIS
from strongbox.audit_outbox.outbox_limit import Bound
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.duties.election import Deposed, Term
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd
from strongbox.store.etcd.errors import Unavailable
from tests.services.audit.producers import Producer, caught_up, following, text_of, until

ELECTION = keyspace.election("audit", "audit")


class FixedClock:
    """A clock that says what it is told to."""

    ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms


async def elect(etcd: Etcd, number: int = 1) -> Term:
    reply = await etcd.transact(txn.txn([], [txn.put(ELECTION, f"{number} node".encode())]))
    return Term(number, ELECTION, reply.header.revision)


@asynccontextmanager
async def on_duty(etcd: Etcd, replica: Replica, node: str = "node-1") -> AsyncIterator[asyncio.Task[None]]:
    term = await elect(etcd)
    task = asyncio.create_task(Trimming(etcd, replica, FixedClock(), node).work(term))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def outbox(etcd: Etcd) -> list[KV]:
    return list((await etcd.range(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX))).rows)


async def mark_of(etcd: Etcd) -> Position:
    row = await etcd.get(keyspace.AUDIT_MARK)
    return Position.parse(row.value) if row else BEGINNING


async def test_what_both_replicas_hold_is_trimmed_and_the_rest_stays(etcd: Etcd, tmp_path: Path) -> None:
    kv, auth = Producer(etcd, "kv", "a" * 16), Producer(etcd, "auth", "b" * 16)
    await kv.put(1, 2)
    revision = await auth.put(1)
    async with following(etcd, tmp_path / "1", "node-1") as one, on_duty(etcd, one):
        async with following(etcd, tmp_path / "2", "node-2") as other:
            await caught_up(revision, one, other)

            async def trimmed() -> bool:
                return not await outbox(etcd) and (await mark_of(etcd)).size == 4

            await until(trimmed, "the outbox is empty")
        revision = await kv.put(3)
        await caught_up(revision, one)
        await asyncio.sleep(2.5)  # time for the duty to do wrong
        assert len(await outbox(etcd)) == 1
        assert (await mark_of(etcd)).size == 4
        async with following(etcd, tmp_path / "2", "node-2"):
            await until(trimmed_to(etcd, 7), "trimmed as soon as the second replica has it")
    assert text_of(tmp_path / "1") == text_of(tmp_path / "2")


def trimmed_to(etcd: Etcd, size: int) -> object:
    async def condition() -> bool:
        return (await mark_of(etcd)).size == size

    return condition


async def test_a_single_replica_trims_alone_and_frees_slots(etcd: Etcd, tmp_path: Path) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_SLOTS + b"07", b"x")]))
    await kv.put(1)
    async with following(etcd, tmp_path / "1", "node-1") as one, on_duty(etcd, one):
        await until(trimmed_to(etcd, 1), "trimmed")

        async def freed() -> bool:
            return await etcd.get(keyspace.AUDIT_SLOTS + b"07") is None

        await until(freed, "the slot is free")
        row = await etcd.get(keyspace.AUDIT_BACKLOG)
        assert row is not None and storage.Backlog.FromString(row.value).records == 0


async def test_replicas_that_differ_stop_the_trimming(etcd: Etcd, tmp_path: Path) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    await kv.put(2)
    lie = Position(1, "f" * 64, 2)
    await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_REPLICAS + b"node-3", lie.pack())]))
    async with (
        following(etcd, tmp_path / "1", "node-1") as one,
        following(etcd, tmp_path / "2", "node-2") as other,
        on_duty(etcd, one),
    ):
        await caught_up(await kv.put(1), one, other)
        await asyncio.sleep(2.5)  # time for the duty to do wrong
    assert len(await outbox(etcd)) == 2
    assert await mark_of(etcd) == BEGINNING


async def test_that_replicas_differ_is_told_whether_or_not_etcd_takes_what_is_published_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without etcd: it would be told as a wait for etcd, and no alarm raised."""
    nothing: Any = None
    duty = Trimming(nothing, nothing, FixedClock(), "node-1")

    async def differ(*_: object) -> Position:
        raise Diverged("node-2 has another entry 7")

    async def away(*_: object) -> None:
        raise Unavailable("etcd did not answer")

    monkeypatch.setattr(duty, "_move_mark", differ)
    monkeypatch.setattr(duty, "_clear", away)
    with pytest.raises(Diverged):
        await duty._trim(Term(1, ELECTION, 1), Seen(None, None, (), (), (), ()))


async def test_a_deposed_holder_changes_nothing(etcd: Etcd, tmp_path: Path) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await caught_up(await kv.put(1), one)
        async with on_duty(etcd, one) as work:
            await until(trimmed_to(etcd, 1), "trimmed")
            await elect(etcd, 2)
            await caught_up(await kv.put(1), one)
            with pytest.raises(Deposed):
                await asyncio.wait_for(work, 10)
    assert len(await outbox(etcd)) == 1
    assert (await mark_of(etcd)).size == 1


async def test_the_cluster_time_is_put_every_second_and_only_after_init(etcd: Etcd, tmp_path: Path) -> None:
    async with following(etcd, tmp_path / "1", "node-1") as one, on_duty(etcd, one):
        await asyncio.sleep(1.5)
        assert await etcd.get(keyspace.CLUSTER_TIME) is None
        await etcd.transact(txn.txn([], [txn.put(keyspace.CLUSTER_TIME, b"%020d" % 5)]))

        async def put() -> bool:
            row = await etcd.get(keyspace.CLUSTER_TIME)
            return row is not None and row.value == b"%020d" % FixedClock.ms

        await until(put, "the clock's time is there")


def position(size: int) -> Position:
    return Position(size, GENESIS, size)


def test_the_target_is_held_by_the_holder_and_one_more() -> None:
    def target(mine: int | None, *others: int, mark: int = 0) -> int:
        reports = {b"%d" % i: position(size) for i, size in enumerate(others)}
        if mine is not None:
            reports[b"own"] = position(mine)
        return target_of(reports, b"own", position(mark)).size

    assert target(9) == 9
    assert target(9, 5) == 5
    assert target(9, 5, 7) == 7
    assert target(9, 12, 7) == 7
    assert target(9, 12, 11) == 0
    assert target(9, 3, mark=5) == 5
    assert target(None, 9, 9, mark=5) == 5


def test_one_range_is_deleted_per_producer_and_nothing_later() -> None:
    def row(producer: str, batch: int, revision: int) -> KV:
        return KV(keyspace.outbox_record("kv", producer, batch, 0), b"", revision, revision)

    rows = [row("a", 1, 10), row("a", 2, 12), row("a", 3, 20), row("b", 1, 19), row("c", 1, 11)]
    ranges = [
        (one.request_delete_range.key, one.request_delete_range.range_end)
        for one in deletions_up_to(rows, 12)
    ]
    assert ranges == [(rows[0].key, rows[1].key + b"\0"), (rows[4].key, rows[4].key + b"\0")]


async def test_a_report_that_nobody_can_read_ends_no_duty_and_vouches_for_nothing(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_REPLICAS + b"node-3", b"\xff\xff\xff")]))
    async with following(etcd, tmp_path / "1", "node-1") as one, on_duty(etcd, one) as duty:
        await caught_up(await kv.put(2), one)
        await asyncio.sleep(2.5)  # time for the duty to do wrong
        assert not duty.done() and await mark_of(etcd) == BEGINNING  # one copy is not two
        async with following(etcd, tmp_path / "2", "node-2"):
            await until(trimmed_to(etcd, 2), "trimmed as soon as a second replica has it")


async def published(etcd: Etcd) -> storage.Backlog:
    row = await etcd.get(keyspace.AUDIT_BACKLOG)
    return storage.Backlog.FromString(row.value if row else b"")


async def test_how_many_bytes_wait_is_published_also_while_nothing_can_be_trimmed(
    etcd: Etcd, tmp_path: Path
) -> None:
    """Few records of hundreds of KB would fill etcd long before there are 50,000 of them."""
    kv, auth = Producer(etcd, "kv", "a" * 16), Producer(etcd, "auth", "b" * 16)
    first = await kv.put(1000)
    await auth.put(1, 1)
    lie = Position(1, "f" * 64, first)
    contradiction = keyspace.AUDIT_REPLICAS + b"node-3"
    await etcd.transact(txn.txn([], [txn.put(contradiction, lie.pack())]))
    expected = [sum(len(row.key) + len(row.value) for row in await outbox(etcd))]

    async def told() -> bool:
        found = await published(etcd)
        return (found.records, found.bytes) == (len(await outbox(etcd)), expected[0])

    bound = Bound(all_bytes=expected[0])
    following_bound = asyncio.create_task(bound.follow(etcd))
    async with following(etcd, tmp_path / "1", "node-1") as one:
        async with on_duty(etcd, one):
            await until(told, "the records that were there")
            await until(lambda: bound.is_full, "no producer may put any")
            for _ in range(3):
                await kv.put(300)
            expected[0] = sum(len(row.key) + len(row.value) for row in await outbox(etcd))
            await until(told, "what came since")
        await etcd.transact(txn.txn([], [txn.delete(contradiction)]))
        async with on_duty(etcd, one):
            expected[0] = 0
            await until(told, "nothing when all is trimmed")
            await until(lambda: not bound.is_full, "there is room again")
    following_bound.cancel()
    await asyncio.gather(following_bound, return_exceptions=True)


async def test_what_is_not_measured_yet_counts_as_the_mean_of_what_is(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    for _ in range(40):
        await kv.put(50)
    rows = await outbox(etcd)
    keys = [row._replace(value=b"") for row in rows]
    first, whole = (sum(len(row.key) + len(row.value) for row in some) for some in (rows[:1], rows))
    monkeypatch.setattr("services.audit.duties.outbox_backlog.BYTES", 1)  # one answer in each round
    measuring = Measuring(etcd)
    rounds = [await measuring.measure(keys) for _ in range(3)]
    assert all(found.records == 40 and abs(found.size - whole) < whole / 20 for found in rounds)
    assert rounds[-1].size == whole
    assert await measuring.measure(keys[:1]) == (1, first)
    monkeypatch.setattr(etcd, "transact", None)  # all is known: nothing is read
    assert await measuring.measure(keys[:1]) == (1, first)
    assert await measuring.measure([]) == (0, 0)
