"""HMAC key terms: the announcement under the old key, all after it under the new; forged ones do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.audit.following.outbox_reader import Announcement, Change, announcements_in, entries_of
from services.audit.keys import AuditKeys, OpenKeys
from strongbox.audit_log.chain import MissingKey, Tampered, Verifier, link
from strongbox.audit_log.log_checker import Proofs, verify_files
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.logs import KEY, entry
from tests.services.audit.producers import (
    ORIGIN,
    SIGNING,
    Producer,
    caught_up,
    following,
    text_of,
)

SECOND = bytes(reversed(range(32)))
BOTH = {1: KEY, 2: SECOND}


def announcement(version: int, outcome: str = "ok") -> bytes:
    one = storage.OutboxEntry(op="RotateAuditKey", outcome=outcome, version=version)
    return storage.OutboxRecord(entries=[one]).SerializeToString()


async def announce(etcd: Etcd, version: int, *, with_key: bool, name: str = "rotator") -> int:
    """What the servicer's transaction puts: the record and, if it is honest, the key."""
    puts = [txn.put(keyspace.outbox_record("audit", name, version, 0), announcement(version))]
    if with_key:
        puts.append(txn.put(keyspace.audit_key(version), b"an envelope"))
    return int((await etcd.transact(txn.txn([], puts))).header.revision)


def keys_in(etcd: Etcd) -> AuditKeys:
    """What neighbours.open_keys gives, without seal: term 2 counts from where its record was created."""

    async def load() -> OpenKeys:
        row = await etcd.get(keyspace.audit_key(2))
        created = {1: 0} | ({2: row.create_revision} if row else {})
        return OpenKeys({term: BOTH[term] for term in created}, created, SIGNING, ORIGIN)

    return AuditKeys(load)


async def test_replicas_change_keys_at_the_record_that_says_so_whenever_they_come(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    await kv.put(2)
    async with following(etcd, tmp_path / "1", "node-1", keys=keys_in(etcd)) as one:
        await announce(etcd, 2, with_key=False, name="forger")  # before there is such a key
        await caught_up(await kv.put(1), one)
        await announce(etcd, 2, with_key=True)
        await announce(etcd, 2, with_key=False, name="forger2")  # and after
        await caught_up(await kv.put(2), one)
    for node in ("1", "2"):  # one begins again in the middle, the other comes late
        async with following(etcd, tmp_path / node, f"node-{node}", keys=keys_in(etcd)) as replica:
            await caught_up(await kv.put(1), replica)
    async with following(etcd, tmp_path / "1", "node-1", keys=keys_in(etcd)) as one:
        await caught_up(await kv.put(1), one)
    lines = text_of(tmp_path / "1").splitlines(keepends=True)
    assert text_of(tmp_path / "2") == b"".join(lines[:-1])
    (log,) = verify_files(sorted((tmp_path / "1").glob("*.jsonl")), Proofs(BOTH))
    assert log.entries == 11
    assert [b"UnreadableRecord" in line for line in lines].count(True) == 2
    with pytest.raises(MissingKey) as missing:
        verify_files(sorted((tmp_path / "1").glob("*.jsonl")), Proofs({1: KEY}))
    assert (missing.value.index, missing.value.term) == (5, 2)
    with pytest.raises(Tampered) as fault:
        verify_files(sorted((tmp_path / "1").glob("*.jsonl")), Proofs({1: KEY, 2: KEY}))
    assert fault.value.index == 5


def test_a_refused_rotation_announces_nothing() -> None:
    change = Change(keyspace.outbox_record("audit", "a", 1, 0), announcement(2, "refused"), 7)
    assert announcements_in([change]) == set()
    assert [one.op for one in entries_of([change])] == ["RotateAuditKey"]
    honest = Change(change.key, announcement(2), 7)
    assert announcements_in([honest]) == {Announcement(2, 7)}
    assert [one.op for one in entries_of([honest])] == ["UnreadableRecord"]
    assert [one.op for one in entries_of([honest], {Announcement(2, 7)})] == ["RotateAuditKey"]


@pytest.mark.parametrize("term", [1, 3, -5])
def test_a_term_out_of_turn_is_tampering_even_under_the_right_key(term: int) -> None:
    first = link(KEY, "0" * 64, entry(0, op="RotateAuditKey", version=term))
    with pytest.raises(Tampered, match="out of turn"):
        Verifier({**BOTH, 3: KEY}).check(first.line())
