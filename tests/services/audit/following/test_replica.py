"""Replicas of the chain on a real etcd: the same bytes everywhere, each record once, whatever breaks."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from services.audit.following.replica import Position, Replica
from services.audit.log.segments import Segments
from strongbox.audit_log.log_checker import Proofs, verify_files
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.logs import KEYS
from tests.services.audit.producers import (
    audit_keys,
    caught_up,
    following,
    put_some,
    text_of,
    two,
    until,
)


def seqs(folder: Path) -> list[str]:
    return [
        f"{one['producer']} {one['producer_seq']}" for one in map(json.loads, text_of(folder).splitlines())
    ]


async def test_two_replicas_compute_byte_identical_logs(etcd: Etcd, tmp_path: Path) -> None:
    kv, auth = two(etcd)
    await put_some(kv, auth, 5)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await caught_up(await put_some(kv, auth, 5), one)
        async with following(etcd, tmp_path / "2", "node-2") as other:
            await caught_up(await put_some(kv, auth, 5), one, other)
    assert text_of(tmp_path / "1") == text_of(tmp_path / "2")
    (log,) = verify_files(sorted((tmp_path / "1").glob("*.jsonl")), Proofs(KEYS))
    assert log.entries == 15 * 4
    assert seqs(tmp_path / "1")[:5] == [
        *(f"kv/{'a' * 16} {seq}" for seq in ("1.0.0", "1.0.1", "1.1.0")),
        f"auth/{'b' * 16} 2.0.0",
        f"kv/{'a' * 16} 2.0.0",
    ]


async def test_a_restarted_replica_has_every_record_exactly_once(etcd: Etcd, tmp_path: Path) -> None:
    kv, auth = two(etcd)
    for _ in range(4):
        revision = await put_some(kv, auth, 3)
        async with following(etcd, tmp_path / "1", "node-1") as replica:
            await caught_up(revision, replica)
    assert len(set(seqs(tmp_path / "1"))) == len(seqs(tmp_path / "1")) == 48
    verify_files(sorted((tmp_path / "1").glob("*.jsonl")), Proofs(KEYS))


@pytest.mark.parametrize("cut", [1, 30, 700, 2000])
async def test_a_torn_write_is_completed_without_loss_or_repetition(
    etcd: Etcd, tmp_path: Path, cut: int
) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 6)
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await caught_up(revision, replica)
    whole = text_of(tmp_path / "1")
    (file,) = (tmp_path / "1").glob("*.jsonl")
    os.truncate(file, len(whole) - cut)
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await caught_up(revision, replica)
    assert text_of(tmp_path / "1") == whole


async def test_a_trimmed_and_compacted_outbox_is_followed_from_where_the_log_ends(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 3)
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await caught_up(revision, replica)
        position = replica.position
    await etcd.transact(
        txn.txn(
            [],
            [
                txn.delete(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX)),
                txn.put(keyspace.AUDIT_MARK, position.pack()),
            ],
        )
    )
    later = await put_some(kv, auth, 2)
    await etcd.compact(later)
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await caught_up(later, replica)
    assert len(set(seqs(tmp_path / "1"))) == len(seqs(tmp_path / "1")) == 20
    verify_files(sorted((tmp_path / "1").glob("*.jsonl")), Proofs(KEYS))


async def test_a_replica_that_lost_trimmed_history_does_not_begin_anew(etcd: Etcd, tmp_path: Path) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 3)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await caught_up(revision, one)
        position = one.position
    await etcd.transact(
        txn.txn(
            [],
            [
                txn.delete(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX)),
                txn.put(keyspace.AUDIT_MARK, position.pack()),
            ],
        )
    )
    await etcd.compact(revision + 1)
    async with following(etcd, tmp_path / "2", "node-2") as other:
        await until(lambda: not other.healthy, "the replica says that it lacks history")
    assert text_of(tmp_path / "2") == b""


async def test_records_nobody_can_read_are_chained_and_do_not_stop_the_chain(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv, auth = two(etcd)
    await put_some(kv, auth, 1)
    named = (b"/0000000000000001/0000", b"//0", b"/0/", b"/" + b"9" * 5000 + b"/0")
    for key in (b"junk", b"kv/x/y/z", b"\xff/\xfe", *(b"kv/" + b"c" * 16 + name for name in named)):
        await etcd.transact(txn.txn([], [txn.put(keyspace.OUTBOX + key, b"\xff\xff\xff")]))
    revision = await put_some(kv, auth, 1)
    async with (
        following(etcd, tmp_path / "1", "node-1") as one,
        following(etcd, tmp_path / "2", "node-2") as other,
    ):
        await caught_up(revision, one, other)
    assert text_of(tmp_path / "1") == text_of(tmp_path / "2")
    assert text_of(tmp_path / "1").count(b"UnreadableRecord") == 7
    verify_files(sorted((tmp_path / "1").glob("*.jsonl")), Proofs(KEYS))


async def test_what_is_durable_is_reported(etcd: Etcd, tmp_path: Path) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 2)
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await caught_up(revision, replica)

        async def reported() -> bool:
            row = await etcd.get(keyspace.AUDIT_REPLICAS + b"node-1")
            return row is not None and Position.parse(row.value) == replica.position

        await until(reported, "the position is reported")


async def test_waiting_for_a_revision_ends_at_its_deadline(etcd: Etcd, tmp_path: Path) -> None:
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        with pytest.raises(TimeoutError):
            await replica.reached(10_000, asyncio.get_running_loop().time())


async def test_batches_that_are_replayed_are_no_gap(etcd: Etcd, tmp_path: Path) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 3)
    replica = Replica(etcd, Segments(tmp_path / "1"), "node-1")
    for _ in range(2):  # the second time from the beginning, as after etcd was away
        running = asyncio.create_task(replica.run(audit_keys()))
        await caught_up(revision, replica)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await etcd.transact(txn.txn([], [txn.delete(keyspace.AUDIT_REPLICAS + b"node-1")]))
        replica.position = Position(0, "0" * 64, 0)
    assert replica.gaps == 0
    assert replica.log.size == 12
