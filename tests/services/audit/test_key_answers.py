"""What a seal replica cannot open is not forged for that: only a certain answer decides what the chain is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.audit.key_loading import CHAIN_PATH, PURPOSE, open_keys
from services.audit.keys import AuditKeys, OpenKeys
from strongbox.audit_log.chain import FIRST_TERM
from strongbox.audit_log.log_checker import Proofs, verify_files
from strongbox.crypto.aead import Aead
from strongbox.crypto.envelope import Dek, WrappedDek, seal_value, unwrap_dek, wrap_dek
from strongbox.crypto.errors import IntegrityError
from strongbox.errors import DependencyDown
from strongbox.store import keyspace
from strongbox.store.envelope_records import to_record
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.logs import KEY
from tests.services.audit.producers import (
    ORIGIN,
    SIGNING,
    Producer,
    audit_keys,
    caught_up,
    following,
    text_of,
    until,
)
from tests.services.audit.test_rotation import SECOND, announcement

IN_USE = 5  # the KEK's term


class SealReplica:
    """As strongbox.rpc.key_client.KeyClient over one replica, which holds the key terms `held`."""

    def __init__(self, *held: int) -> None:
        self.held, self.asked = set(held), 0

    def _keks(self, term: int) -> Aead | None:
        return Aead(bytes([term]) * 32) if term in self.held else None

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        term = max(self.held)
        return [wrap_dek(Aead(bytes([term]) * 32), PURPOSE, term, dek) for dek in deks]

    async def unwrap(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        found = [self._unwrap(one) for one in wrapped]
        if not all(found):
            raise IntegrityError
        return found

    def unwrap_soon(self, wrapped: WrappedDek) -> asyncio.Future[list[bytes]]:
        answer: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        answer.set_result([self._unwrap(wrapped)])
        return answer

    def _unwrap(self, wrapped: WrappedDek) -> bytes:
        self.asked += 1
        kek = self._keks(wrapped.term)
        try:
            return unwrap_dek(kek, PURPOSE, wrapped) if kek else b""
        except IntegrityError:
            return b""


def enveloped(key: bytes, term: int, kek: int, path: str = CHAIN_PATH) -> bytes:
    dek = Dek.fresh()
    wrapped = wrap_dek(Aead(bytes([kek]) * 32), PURPOSE, kek, dek)
    return to_record(seal_value(dek, wrapped, PURPOSE, path, term, key)).SerializeToString()


async def initialised(etcd: Etcd) -> None:
    puts = {
        keyspace.AUDIT_KEY: enveloped(KEY, FIRST_TERM, IN_USE - 1),
        keyspace.CLUSTER_ID: b"test",
        keyspace.SEAL_STATE: b"unsealed:1:%d" % IN_USE,
    }
    await etcd.transact(txn.txn([], [txn.put(key, value) for key, value in puts.items()]))


async def rotate(etcd: Etcd, name: str, key: bytes | None, term: int = 2) -> int:
    puts = [txn.put(keyspace.outbox_record("audit", name, term, 0), announcement(term))]
    if key is not None:
        puts.append(txn.put(keyspace.audit_key(term), key))
    return int((await etcd.transact(txn.txn([], puts))).header.revision)


def keys_by(etcd: Etcd, seal: SealReplica) -> AuditKeys:
    async def load() -> OpenKeys:
        found = await open_keys(etcd, seal)  # type: ignore[arg-type]  # a fake of KeyClient
        return OpenKeys(found.chain, found.created, SIGNING, ORIGIN)

    return AuditKeys(load)


async def test_a_true_rotation_is_waited_for_while_the_seal_replica_has_not_heard_of_the_key_term(
    etcd: Etcd, tmp_path: Path
) -> None:
    await initialised(etcd)
    seal, kv = SealReplica(IN_USE - 1), Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "1", "node-1", keys=keys_by(etcd, seal)) as replica:
        before = await kv.put(2)
        await caught_up(before, replica)
        await rotate(etcd, "rotator", enveloped(SECOND, 2, IN_USE))
        last = await kv.put(1)
        seen = seal.asked
        await until(lambda: seal.asked > seen + 6, "it asks again")
        assert replica.position.size == 2 and "UnreadableRecord" not in text_of(tmp_path / "1").decode()
        seal.held.add(IN_USE)
        await caught_up(last, replica)
        assert replica.healthy
    (log,) = verify_files(sorted((tmp_path / "1").glob("*.jsonl")), Proofs({1: KEY, 2: SECOND}))
    assert log.entries == 4 and b"UnreadableRecord" not in text_of(tmp_path / "1")


FORGED = {
    "a key term that is not in use yet": enveloped(SECOND, 2, IN_USE + 4),
    "a key term that was retired": enveloped(SECOND, 2, 1),
    "another's key under the term in use": enveloped(SECOND, 2, IN_USE, "audit/signing-key"),
    "garbage": b"\xff\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("what", FORGED)
async def test_a_forged_key_is_decided_at_once_and_stops_nothing(
    etcd: Etcd, tmp_path: Path, what: str
) -> None:
    await initialised(etcd)
    kv = Producer(etcd, "kv", "a" * 16)
    keys = keys_by(etcd, SealReplica(IN_USE - 1, IN_USE))
    async with following(etcd, tmp_path / "1", "node-1", keys=keys) as replica:
        await rotate(etcd, "forger", FORGED[what])
        await caught_up(await kv.put(1), replica)
        assert replica.healthy and replica.position.size == 2
    assert text_of(tmp_path / "1").count(b"UnreadableRecord") == 1


async def test_a_wrapped_key_that_was_altered_is_forged_only_for_a_replica_that_holds_its_term(
    etcd: Etcd,
) -> None:
    await initialised(etcd)
    altered = bytearray(enveloped(SECOND, 2, IN_USE))
    altered[30] ^= 1
    await rotate(etcd, "forger", bytes(altered))
    with pytest.raises(DependencyDown):
        await open_keys(etcd, SealReplica(IN_USE - 1))  # type: ignore[arg-type]  # a fake of KeyClient
    found: Any = await open_keys(etcd, SealReplica(IN_USE - 1, IN_USE))  # type: ignore[arg-type]  # as above
    assert set(found.chain) == {1}


async def test_a_log_that_took_a_true_rotation_for_a_false_one_is_cut_back_and_mended(
    etcd: Etcd, tmp_path: Path
) -> None:
    """As versions before left it."""
    await initialised(etcd)
    kv = Producer(etcd, "kv", "a" * 16)
    await kv.put(2)
    await rotate(etcd, "rotator", enveloped(SECOND, 2, IN_USE))
    last = await kv.put(3)
    async with following(etcd, tmp_path / "1", "node-1", keys=audit_keys()) as astray:  # knows of no term 2
        await caught_up(last, astray)
        await until(lambda: _reported(etcd, last), "it has reported")
    assert b"UnreadableRecord" in text_of(tmp_path / "1")
    for node in ("1", "2"):
        keys = keys_by(etcd, SealReplica(IN_USE - 1, IN_USE))
        async with following(etcd, tmp_path / node, f"node-{node}", keys=keys) as replica:
            await caught_up(last, replica)
            assert replica.healthy
    assert text_of(tmp_path / "1") == text_of(tmp_path / "2")
    assert b"UnreadableRecord" not in text_of(tmp_path / "1")
    assert list((tmp_path / "1").glob("*.astray-1"))  # what it had said is kept


async def _reported(etcd: Etcd, revision: int) -> bool:
    row = await etcd.get(keyspace.AUDIT_REPLICAS + b"node-1")
    return row is not None and row.mod_revision > revision
