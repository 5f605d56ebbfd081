"""Unauthenticated refusals through a real pipeline and etcd: each counted once, never more than the slots."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from strongbox.audit_outbox.outbox import Outbox
from strongbox.audit_outbox.refusal_counts import MAX_SOURCES, SLOTS, Attempt, Slots, slot_of
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd


class FixedClock:
    """A clock that stands still."""

    def now_ms(self) -> int:
        return 1_800_000_000_000


@pytest.fixture
async def slots(etcd: Etcd) -> AsyncIterator[Slots]:
    """Slots over a pipeline of their own."""
    pipeline = Pipeline(etcd, Memory(), Outbox("kv"), FixedClock())
    await pipeline.start()
    yield Slots(pipeline)
    await pipeline.close()


async def recorded(etcd: Etcd) -> dict[str, list[int]]:
    """What the outbox says: counts per source."""
    counts: dict[str, list[int]] = {}
    rows = (await etcd.range(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX))).rows
    for row in sorted(rows, key=lambda row: row.mod_revision):
        for entry in storage.OutboxRecord.FromString(row.value).entries:
            counts.setdefault(entry.client, []).append(entry.version)
    return counts


async def taken(etcd: Etcd) -> int:
    """How many slots are taken."""
    return len((await etcd.range(keyspace.AUDIT_SLOTS, keyspace.prefix_end(keyspace.AUDIT_SLOTS))).rows)


async def test_a_taken_slot_keeps_its_source_counting_until_it_is_freed(etcd: Etcd, slots: Slots) -> None:
    for _ in range(3):
        slots.count("10.0.0.1")
    await slots.flush()
    for _ in range(5):
        slots.count("10.0.0.1")
        await slots.flush()
    assert await recorded(etcd) == {"10.0.0.1": [3]}
    await etcd.transact(txn.txn([], [txn.delete(slot_of("10.0.0.1"))]))
    await slots.flush()
    await etcd.transact(txn.txn([], [txn.delete(slot_of("10.0.0.1"))]))
    await slots.flush()
    assert sum((await recorded(etcd))["10.0.0.1"]) == 8


async def test_nothing_is_recorded_while_nothing_is_refused(etcd: Etcd, slots: Slots) -> None:
    await slots.flush()
    assert await recorded(etcd) == {}


async def test_any_number_of_sources_leaves_no_more_records_than_slots(etcd: Etcd, slots: Slots) -> None:
    for number in range(1000):
        slots.count(f"10.0.{number // 256}.{number % 256}")
    assert len(slots._counts) <= MAX_SOURCES + 1
    await slots.flush()
    found = await recorded(etcd)
    assert sum(map(len, found.values())) == await taken(etcd) <= SLOTS


async def test_a_count_whose_answer_was_lost_is_recognised(etcd: Etcd, slots: Slots) -> None:
    slots.count("10.0.0.1")
    await slots.flush()
    row = await etcd.get(slot_of("10.0.0.1"))
    assert row is not None
    nonce, count = row.value.decode().split(" ")
    slots._attempts["10.0.0.1"] = Attempt(int(count), nonce)
    await slots.flush()
    assert slots._attempts == {}
    assert await recorded(etcd) == {"10.0.0.1": [1]}
