"""A secret's head: authenticated, without values, and paired with its envelopes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from strongbox.errors import Internal, NoQuorum, Sealed, VersionDeleted
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.storage.v1 import auth_records_pb2, envelope_pb2
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from tests.services.kv.support import Kv

LARGE = "x" * (500 << 10)


def forge(kv: Kv, change: Callable[[storage.SecretHead], None]) -> None:
    """Edit the head as whoever writes to etcd can, who has no record key."""
    key = keyspace.head("a")
    record = auth_records_pb2.AuthenticatedRecord.FromString(kv.store.value(key) or b"")
    head = storage.SecretHead.FromString(record.body)
    change(head)
    record.body = head.SerializeToString()
    kv.store.seed(key, record.SerializeToString())


async def test_a_forged_head_undoes_no_delete_and_drops_no_cas(kv: Kv) -> None:
    await kv.write()
    await kv.call("UpdateSecretMetadata", pb.UpdateSecretMetadataRequest(path="a", cas_required=True))
    await kv.change("Delete", 1)
    with pytest.raises(VersionDeleted):
        await kv.read()

    def undo(head: storage.SecretHead) -> None:
        head.versions[0].deleted_ms = 0
        head.cas_required = False

    forge(kv, undo)
    before = dict(kv.store.facts)
    for call in (kv.read(), kv.metadata(), kv.write(), kv.write(cas=0), kv.change("Undelete", 1)):
        with pytest.raises(Internal):
            await call
    assert dict(kv.store.facts) == before, "nothing was written over it"


@pytest.mark.parametrize("junk", [b"", b"\xff\xff\xff\xff", b"x"])
async def test_junk_is_no_absent_secret(kv: Kv, junk: bytes) -> None:
    await kv.write()
    kv.store.seed(keyspace.head("a"), junk)
    for call in (kv.read(), kv.write(cas=0), kv.metadata()):
        with pytest.raises(Internal):
            await call


async def test_a_head_of_another_path_is_forged(kv: Kv) -> None:
    await kv.write("b")
    kv.store.seed(keyspace.head("a"), kv.store.value(keyspace.head("b")))
    with pytest.raises(Internal):
        await kv.read("a")


async def test_an_envelope_of_a_secret_removed_since_is_not_this_ones(kv: Kv) -> None:
    """Same path, same version number: both are sealed for the same place, and told apart by the head."""
    await kv.write("a", "old")
    key = keyspace.envelope("a", 1)
    old = kv.store.value(key)
    await kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path="a"))
    await kv.write("a", "new")
    kv.store.seed(key, old)
    with pytest.raises(Internal):
        await kv.read()


async def test_changing_metadata_costs_bytes_not_the_value(kv: Kv) -> None:
    await kv.write("a", LARGE)
    assert len(kv.store.value(keyspace.head("a")) or b"") < 1000
    envelope = kv.store.facts[keyspace.envelope("a", 1)]
    for number in range(3):
        request = pb.UpdateSecretMetadataRequest(path="a", custom={"k": str(number)})
        await kv.call("UpdateSecretMetadata", request)
    await kv.change("Delete", 1)
    await kv.change("Undelete", 1)
    assert kv.store.facts[keyspace.envelope("a", 1)] == envelope
    assert (await kv.read()).value == LARGE


async def test_a_read_compares_the_head_and_no_value(kv: Kv) -> None:
    await kv.write()
    await kv.read()
    seen = list[bytes]()
    carry_out = kv.pipeline._carry_out

    def watched(view, value, draft):  # type: ignore[no-untyped-def]
        seen.extend(view.footprint.reads)
        return carry_out(view, value, draft)

    kv.pipeline._carry_out = watched  # type: ignore[method-assign]
    await kv.read()
    assert keyspace.head("a") in seen
    assert not [key for key in seen if key.startswith(keyspace.KV_ENVELOPES)]


async def test_an_envelope_remembered_under_a_retired_term_is_read_again(kv: Kv) -> None:
    await kv.write()
    key = keyspace.envelope("a", 1)
    good = kv.store.value(key) or b""
    stale = envelope_pb2.Envelope.FromString(good)
    stale.wrapped_dek = bytes(32)  # as a wrapping whose term is retired: it does not open
    kv.store.seed(key, stale.SerializeToString())
    unwraps = kv.key_client.unwraps

    def rewrapped() -> None:
        kv.pipeline.before = lambda: kv.store.seed(key, good)

    kv.pipeline.before = rewrapped
    assert (await kv.read()).value == "v"
    assert kv.key_client.unwraps > unwraps


TELLING = [
    ("ReadSecret", pb.ReadSecretRequest(path="a")),
    ("BatchReadSecrets", pb.BatchReadSecretsRequest(requests=[pb.SecretReference(path="a")])),
]


async def proved(kv: Kv, name: str, request: Any) -> asyncio.Future[Any]:
    """A read that is proved and waits for its key."""
    await kv.write()
    kv.key_client.gate.clear()
    read = asyncio.ensure_future(kv.call(name, request))
    await asyncio.sleep(0.01)
    return read


@pytest.mark.parametrize(("name", "request_"), TELLING, ids=lambda one: one if isinstance(one, str) else "")
async def test_no_value_leaves_once_the_proof_is_older_than_seal_waits_for(
    kv: Kv, name: str, request_: Any
) -> None:
    """The process was stopped between its proof and its answer."""
    read = await proved(kv, name, request_)
    kv.key_client.stale = True
    kv.key_client.gate.set()
    with pytest.raises(NoQuorum):
        await read


@pytest.mark.parametrize(("name", "request_"), TELLING, ids=lambda one: one if isinstance(one, str) else "")
async def test_no_value_leaves_after_a_seal_even_if_the_cluster_is_unsealed_again(
    kv: Kv, name: str, request_: Any
) -> None:
    read = await proved(kv, name, request_)
    kv.key_client.seal()
    kv.key_client.record_keys = kv.keys
    kv.key_client.gate.set()
    with pytest.raises(Sealed):
        await read


async def test_a_proof_is_as_old_as_its_transaction_and_not_as_its_request(
    kv: Kv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for its turn, or was decided again: what it was proved by is new."""
    await kv.write()
    since = list[float]()
    monkeypatch.setattr(kv.key_client, "require_unsealed_since", since.append)
    sent = list[float]()

    def overtake() -> None:
        kv.store.seed(keyspace.head("a"), kv.store.value(keyspace.head("a")))
        sent.append(time.monotonic())

    kv.pipeline.before = overtake
    await kv.read()
    assert since[0] >= sent[0]


@pytest.mark.parametrize(("name", "request_"), TELLING, ids=lambda one: one if isinstance(one, str) else "")
async def test_a_reading_that_is_decided_twice_stands_in_the_chain_once(
    kv: Kv, name: str, request_: Any
) -> None:
    """Its key did not open: the envelope that was remembered is under a term that is retired by now."""
    await kv.write()
    key = keyspace.envelope("a", 1)
    good = kv.store.value(key) or b""
    stale = envelope_pb2.Envelope.FromString(good)
    stale.wrapped_dek = bytes(32)
    kv.store.seed(key, stale.SerializeToString())

    def rewrapped() -> None:
        kv.pipeline.before = lambda: kv.store.seed(key, good)

    kv.pipeline.before = rewrapped
    kv.pipeline.audited.clear()
    await kv.call(name, request_)
    assert [(one.op, one.path, one.version, one.outcome) for one in kv.pipeline.audited] == [
        (name, "secret/a", 1, "ok")
    ]
