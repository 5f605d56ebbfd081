"""The same request again: applied once, answered alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongbox.errors import (
    IdempotencyMismatch,
    InvalidInput,
    NotFound,
)
from strongbox.kv.v1 import kv_service_pb2 as pb
from tests.services.kv.support import Kv


async def test_a_write_repeated_with_its_key_is_applied_once(kv: Kv) -> None:
    first = await kv.write(key="k1")
    await kv.write("a", "other")
    assert await kv.write(key="k1") == first
    assert kv.head().current_version == 2


async def test_the_same_key_with_another_request_is_an_error(kv: Kv) -> None:
    await kv.write(key="k1")
    for call in (kv.write("a", "other", key="k1"), kv.change("Delete", key="k1")):
        with pytest.raises(IdempotencyMismatch):
            await call
    assert kv.head().current_version == 1


async def test_keys_of_another_caller_are_his_own(kv: Kv) -> None:
    token = kv.token_of(secret__a="write")
    await kv.write(key="k1")
    assert (await kv.write("a", "other", key="k1", token=token)).version == 2


async def test_a_request_id_counts_for_ten_seconds(kv: Kv) -> None:
    first = await kv.write(request_id="r")
    kv.store.now_ms += 9_999
    assert await kv.write(request_id="r") == first
    kv.store.now_ms += 1
    assert (await kv.write(request_id="r")).version == 2


async def test_the_same_request_id_with_another_request_is_another_operation(kv: Kv) -> None:
    await kv.write(request_id="r")
    assert (await kv.write("a", "other", request_id="r")).version == 2


async def test_the_newest_is_fixed_when_a_delete_is_first_decided(kv: Kv) -> None:
    await kv.write()
    first = await kv.change("Delete", key="k")
    await kv.write("a", "new")
    assert await kv.change("Delete", key="k") == first
    assert (await kv.read()).value == "new"


async def test_every_kind_of_change_is_repeated_harmlessly(kv: Kv) -> None:
    await kv.write()
    deleted = await kv.change("Delete", 1, key="d")
    undeleted = await kv.change("Undelete", 1, key="u")
    assert await kv.change("Delete", 1, key="d") == deleted
    assert (await kv.read()).value == "v"
    request = pb.UpdateSecretMetadataRequest(path="a", max_versions=3)
    updated = await kv.call("UpdateSecretMetadata", request, key="m")
    await kv.call("UpdateSecretMetadata", pb.UpdateSecretMetadataRequest(path="a", max_versions=5))
    assert await kv.call("UpdateSecretMetadata", request, key="m") == updated
    assert (await kv.metadata()).max_versions == 5
    destroyed = await kv.change("Destroy", 1, key="x")
    assert await kv.change("Destroy", 1, key="x") == destroyed
    assert await kv.change("Undelete", 1, key="u") == undeleted


async def test_sixteen_operations_are_remembered(kv: Kv) -> None:
    first = await kv.write("a", "0", key="k0")
    for number in range(1, 16):
        await kv.write("a", str(number), key=f"k{number}")
    assert await kv.write("a", "0", key="k0") == first
    await kv.write("a", "16", key="k16")
    assert (await kv.write("a", "0", key="k0")).version == 18
    assert len(kv.head().operations) == 16


async def test_a_write_repeated_after_the_secret_was_removed_does_not_bring_it_back(kv: Kv) -> None:
    first = await kv.write(key="k")
    request = pb.DeleteSecretMetadataRequest(path="a")
    removed = await kv.call("DeleteSecretMetadata", request, key="r")
    assert await kv.write(key="k") == first
    with pytest.raises(NotFound):
        await kv.metadata()
    await kv.write("a", "anew", cas=0)
    assert await kv.call("DeleteSecretMetadata", request, key="r") == removed
    assert await kv.write(key="k") == first
    assert (await kv.read()).value == "anew"


async def test_a_repetition_writes_nothing_and_is_audited(kv: Kv) -> None:
    await kv.write(key="k")
    writes = kv.pipeline.writes
    await kv.write(key="k")
    assert kv.pipeline.writes == writes
    assert [draft.version for draft in kv.pipeline.audited] == [1, 1]


@pytest.mark.parametrize("key", ["x" * 129, "a\nb"])
async def test_an_idempotency_key_that_is_none_is_refused(kv: Kv, key: str) -> None:
    with pytest.raises(InvalidInput):
        await kv.write(key=key)


async def test_an_operation_tells_nothing_of_the_value(kv: Kv) -> None:
    await kv.write("a", "hunter2", key="k")
    kv.key_client.record_keys = replace(kv.keys, by_term={1: kv.keys.by_term[1], 2: b"z" * 32}, newest=2)
    await kv.write("b", "hunter2", key="k")
    macs = {kv.head(path).operations[0].mac for path in ("a", "b")}
    assert len(macs) == 2
    assert b"hunter2" not in kv.head().SerializeToString()


async def test_a_repetition_is_recognized_after_the_record_key_was_rotated(kv: Kv) -> None:
    first = await kv.write(key="k")
    kv.key_client.record_keys = replace(kv.keys, by_term={1: kv.keys.by_term[1], 2: b"z" * 32}, newest=2)
    assert await kv.write(key="k") == first
