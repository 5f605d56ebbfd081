"""Data keys: unwrapped while etcd decides, wrapped for values only; and the lease a read leaves."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from services.kv.data_keys import DataKey, Sealing
from strongbox.crypto.aead import Aead, new_key
from strongbox.crypto.envelope import Dek, wrap_dek
from strongbox.errors import (
    DependencyDown,
    Internal,
    NoQuorum,
    Unauthenticated,
    VersionDeleted,
)
from strongbox.lease_records import read_lease
from strongbox.storage.v1.envelope_pb2 import Envelope
from strongbox.store import keyspace
from tests.services.kv.support import Kv
from tests.support.access import draft


async def test_a_value_written_meanwhile_is_unwrapped_again(kv: Kv) -> None:
    await kv.write("a", "one")
    other = Kv()
    await other.write("a", "one")
    await other.write("a", "two")
    kv.key_client._kek = other.key_client._kek  # one seal service

    def overtake() -> None:
        for key in (keyspace.envelope("a", 2), keyspace.head("a")):
            kv.store.seed(key, other.store.value(key))

    kv.pipeline.before = overtake
    assert (await kv.read()).value == "two"


async def test_an_unwrap_nobody_waits_for_is_cancelled(kv: Kv) -> None:
    await kv.write()
    token = kv.token_of(secret__a="read")
    kv.key_client.gate.clear()
    started = asyncio.get_running_loop().create_future()

    def revoke() -> None:
        kv.drop(token)
        started.set_result(None)

    kv.pipeline.before = revoke
    with pytest.raises(Unauthenticated):
        await kv.read(token=token)
    await started
    await asyncio.sleep(0)
    kv.key_client.gate.set()
    assert kv.key_client.unwraps == 0


async def test_a_seal_service_that_does_not_answer_is_a_503_and_no_value(kv: Kv) -> None:
    await kv.write()
    kv.key_client.error = DependencyDown()
    with pytest.raises(DependencyDown):
        await kv.read()


async def test_a_ciphertext_moved_to_another_path_does_not_open(kv: Kv) -> None:
    await kv.write("a", "one")
    kv.put_head("b", kv.head("a"))
    kv.store.seed(keyspace.envelope("b", 1), kv.store.value(keyspace.envelope("a", 1)))
    with pytest.raises(Internal):
        await kv.read("b")


async def test_refused_writes_use_up_no_wraps(kv: Kv) -> None:
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await kv.write(token="sb." + "x" * 43)
    assert kv.key_client.wraps == 1
    await kv.write()
    await kv.write()
    assert kv.key_client.wraps == 2


async def test_a_data_key_is_never_used_for_two_values(kv: Kv) -> None:
    for number in range(5):
        await kv.write("a", str(number))
    all_ = [Envelope.FromString(kv.store.value(key) or b"") for key in kv.store.keys(keyspace.KV_ENVELOPES)]
    assert len({envelope.dek_id for envelope in all_}) == 5


async def test_a_read_leaves_a_lease_and_a_hot_read_writes_nothing(kv: Kv) -> None:
    await kv.write()
    token = kv.token_of(secret__a="read")
    first = await kv.read(token=token)
    assert first.lease.id == read_lease.lease_id(kv.accessor_of(token), "secret/a")
    assert first.lease.ttl == 3600
    writes = kv.pipeline.writes
    kv.store.now_ms += 60_000
    again = await kv.read(token=token)
    assert kv.pipeline.writes == writes
    assert (again.lease.id, again.lease.ttl) == (first.lease.id, 3540)
    assert again.lease.expires_at == first.lease.expires_at


async def test_a_lease_never_outlives_the_token(kv: Kv) -> None:
    await kv.write()
    kv.put_policy("app", {"secret/a": "read"})
    token = kv.add_token(policies=["app"], expires_ms=kv.store.now_ms + 60_000)
    assert (await kv.read(token=token)).lease.ttl == 60
    kv.store.now_ms += 30_000
    assert (await kv.read(token=token)).lease.ttl == 30


async def test_a_revoked_lease_is_replaced_in_the_read_that_finds_it(kv: Kv) -> None:
    await kv.write()
    first = await kv.read()

    def revoke() -> None:
        kv.store.run(lambda v: read_lease.revoke(v, kv.keys, _lease(kv, first.lease.id)))

    kv.store.now_ms += 60_000
    kv.pipeline.before = revoke
    again = await kv.read()
    assert again.lease.ttl == 3600
    assert read_lease.state_of(_lease(kv, first.lease.id), kv.store.now_ms) == read_lease.ACTIVE


def _lease(kv: Kv, name: str) -> read_lease.Record:
    record = read_lease.find(kv.store.view(), kv.keys, name)
    assert record is not None
    return record


async def test_a_refused_read_leaves_no_lease(kv: Kv) -> None:
    await kv.write()
    await kv.change("Delete", 1)
    with pytest.raises(VersionDeleted):
        await kv.read()
    assert kv.store.keys(keyspace.READ_LEASES) == []


def test_a_request_keeps_only_its_latest_envelope_and_seals_nothing_once_it_is_over() -> None:
    """A contended write is decided again and again, each time as another version."""
    dek = Dek.fresh()
    sealing = Sealing(DataKey(dek, wrap_dek(Aead(new_key()), "kv", 1, dek)), b"value")
    first = sealing.seal("a", 1)
    assert sealing.seal("a", 1) is first
    for version in range(2, 50):
        sealing.seal("a", version)
    assert sealing.seal("a", 1) is not first
    assert sealing.end() is None, "a value was sealed under it"
    with pytest.raises(RuntimeError):
        sealing.seal("a", 1)


async def test_who_is_decided_for_after_he_has_left_leaves_nothing_to_whoever_has_his_key_next(
    kv: Kv,
) -> None:
    """A's deadline passes while his write is queued, B gets his data key, and A is decided for first."""
    await kv.write("a", "first")
    submit, late = kv.pipeline.submit, list[Any]()

    async def leaving(work: Any) -> Any:
        late.append(work)
        raise NoQuorum

    async def deciding_for_the_leaver_first(work: Any) -> Any:
        with contextlib.suppress(RuntimeError):
            late[0].decide(kv.store.view(draft()))
        return await submit(work)

    kv.pipeline.submit = leaving  # type: ignore[method-assign]
    with pytest.raises(NoQuorum):
        await kv.write("a", "of A")
    kv.pipeline.submit = deciding_for_the_leaver_first  # type: ignore[method-assign]
    made = await kv.write("a", "of B")
    assert kv.key_client.wraps == 2, "B has the key that A gave back"
    kv.pipeline.submit = submit  # type: ignore[method-assign]
    assert (await kv.read("a", made.version)).value == "of B"
