"""Checkpoints in etcd: each contains the one before, only ours are believed; proofs that fail stay untold."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest

from services.audit.duties import audit_duty
from services.audit.duties.audit_duty import Trimming
from services.audit.following.replica import Replica
from services.audit.log.segments import Segments
from services.audit.proofs import prove
from services.audit.proofs.checkpoint_publisher import Forked, Publisher
from services.audit.proofs.prove import Unproved
from strongbox.audit_log.checkpoint import Checkpoint, sign, verify
from strongbox.audit_log.merkle import is_consistent
from strongbox.crypto.ed25519 import SigningKey
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.duties.test_audit_duty import FixedClock, elect
from tests.services.audit.logs import chain
from tests.services.audit.producers import ORIGIN, SIGNING, Producer, audit_keys, caught_up, following, until


async def publisher_of(etcd: Etcd, replica: Replica) -> Publisher:
    keys = audit_keys()
    await keys.open()
    return Publisher(etcd, replica, keys)


def soon() -> float:
    return time.monotonic() + 10


async def test_each_checkpoint_contains_the_one_before(etcd: Etcd, tmp_path: Path) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        publisher = await publisher_of(etcd, one)
        seen = []
        for _ in range(4):
            await caught_up(await kv.put(2, 1), one)
            note, told = await publisher.publish(one.position.size, soon())
            assert verify(note, SIGNING.public, ORIGIN) == told
            seen.append(told)
        assert [told.size for told in seen] == [3, 6, 9, 12]
        assert await publisher.publish(5, soon()) == (note, told)  # what is enough is not signed again
        for old, new in pairwise(seen):
            growth = prove.prove_growth(one.log, old.size, new.size)
            assert is_consistent(old.size, new.size, old.root, new.root, growth.path)
            assert prove.prove_signed(one.log, old.size, new).root == old.root


async def test_several_replicas_publish_one_history(etcd: Etcd, tmp_path: Path) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with (
        following(etcd, tmp_path / "1", "node-1") as one,
        following(etcd, tmp_path / "2", "node-2") as other,
    ):
        publishers = [await publisher_of(etcd, replica) for replica in (one, other)]
        for _ in range(5):
            await caught_up(await kv.put(1), one, other)
            size = one.position.size
            answers = await asyncio.gather(*(each.publish(size, soon()) for each in publishers * 3))
            assert len({note for note, _ in answers}) == 1


async def test_a_checkpoint_that_is_not_ours_is_not_believed(etcd: Etcd, tmp_path: Path) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await caught_up(await kv.put(3), one)
        publisher = await publisher_of(etcd, one)
        root = one.log.hashes.root(3)
        for forged in (
            b"\\xff", sign(Checkpoint(ORIGIN, 99, root), SigningKey(bytes(32))).encode(),
            sign(Checkpoint("another", 99, root), SIGNING).encode(),
        ):  # fmt: skip
            await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_CHECKPOINT, forged)]))
            assert (await publisher.publish(3, soon()))[1].size == 3


async def test_nothing_is_signed_by_a_replica_whose_log_is_not_what_was_signed(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await caught_up(await kv.put(3), one)
        signed = sign(Checkpoint(ORIGIN, 2, bytes(32)), SIGNING).encode()
        await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_CHECKPOINT, signed)]))
        with pytest.raises(Forked):
            await (await publisher_of(etcd, one)).publish(3, soon())
        row = await etcd.get(keyspace.AUDIT_CHECKPOINT)
        assert row is not None and row.value == signed


async def test_the_duty_signs_at_its_interval_and_raises_the_alarm_when_it_cannot(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_duty, "SIGN_EVERY", 0.5)
    kv = Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        duty = Trimming(etcd, one, FixedClock(), "node-1", await publisher_of(etcd, one))
        work = asyncio.create_task(duty.work(await elect(etcd)))
        try:
            await caught_up(await kv.put(3), one)

            async def signed() -> bool:
                row = await etcd.get(keyspace.AUDIT_CHECKPOINT)
                return row is not None and verify(row.value.decode(), SIGNING.public).size == 3

            await until(signed, "a checkpoint is there")
            forked = sign(Checkpoint(ORIGIN, 3, bytes(32)), SIGNING).encode()
            await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_CHECKPOINT, forked)]))
            await until(lambda: bool(duty.alarm), "the alarm is raised")
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def test_a_proof_from_hashes_that_were_altered_is_not_told(tmp_path: Path) -> None:
    log = Segments(tmp_path)
    log.append(chain(20))
    signed = Checkpoint(ORIGIN, 20, log.hashes.root(20))
    assert prove.prove_entry(log, 7, 20).path
    row = bytearray(log.hashes.path.read_bytes())
    row[10 * 32] ^= 1
    log.hashes.path.write_bytes(row)
    with pytest.raises(Unproved):
        prove.prove_entry(log, 7, 20)  # entry 6's hash is beside its way to the root
    with pytest.raises(Unproved):
        prove.prove_signed(log, 7, signed)
    row[10 * 32] ^= 1
    log.hashes.path.write_bytes(row)
    file = log.path(0)
    file.write_bytes(file.read_bytes().replace(b"request-7", b"request-x"))
    with pytest.raises(Unproved):
        prove.prove_entry(log, 7, 20)
