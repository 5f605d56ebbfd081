"""Many secrets in one call: each its own permission, record and refusal; one revision; at most 1 MiB."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest

from strongbox.errors import InvalidInput, Sealed, TooLarge, Unauthenticated
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.lease_records import counters
from strongbox.lease_records.read_lease import lease_id
from strongbox.store import keyspace
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.view import View
from tests.services.kv.support import Kv


async def read(kv: Kv, *paths: str, token: str = "") -> pb.BatchReadSecretsResponse:
    request = pb.BatchReadSecretsRequest(requests=[pb.SecretReference(path=path) for path in paths])
    answer: pb.BatchReadSecretsResponse = await kv.call("BatchReadSecrets", request, token=token)
    return answer


async def test_each_secret_is_authorized_and_audited_by_itself(kv: Kv) -> None:
    for path in ("app/a", "app/b", "other"):
        await kv.write(path, path)
    kv.pipeline.audited.clear()
    token = kv.token_of(secret__app__ALL="read")
    answer = await read(kv, "app/a", "other", "app/none", "app/b", token=token)
    kinds = [one.WhichOneof("result") for one in answer.results]
    assert kinds == ["secret", "error", "error", "secret"]
    assert [answer.results[index].secret.value for index in (0, 3)] == ["app/a", "app/b"]
    assert [answer.results[index].error.code for index in (1, 2)] == [7, 5]
    told = sorted((one.path, one.outcome, one.reason) for one in kv.pipeline.audited)
    assert told == [
        ("secret/app/a", "ok", ""), ("secret/app/b", "ok", ""),
        ("secret/app/none", "refused", "NOT_FOUND"), ("secret/other", "refused", "PERMISSION_DENIED"),
    ]  # fmt: skip
    assert {one.op for one in kv.pipeline.audited} == {"BatchReadSecrets"}


async def test_a_secret_that_no_lease_is_left_for_is_refused_by_itself(kv: Kv) -> None:
    token = kv.token_of(secret__ALL="read")
    accessor = kv.accessor_of(token)
    parts = {
        name: counters.holder_key(f"token/{accessor}", lease_id(accessor, f"secret/{name}"))
        for name in "abcdefgh"
    }
    full = next(name for name in parts if parts[name] != parts["a"])
    for name in ("a", full):
        await kv.write(name, name)
    kv.store.seed(parts[full], b"%d" % counters.PER_PART)
    answer = await read(kv, "a", full, token=token)
    assert answer.results[0].secret.value == "a"
    assert answer.results[1].error.code == 8  # RESOURCE_EXHAUSTED


async def test_who_has_no_token_or_asks_a_sealed_cluster_is_refused_as_a_whole(kv: Kv) -> None:
    await kv.write("a")
    with pytest.raises(Unauthenticated):
        await read(kv, "a", token="sb.unknown")
    kv.key_client.seal()
    with pytest.raises(Sealed):
        await read(kv, "a")


async def test_none_and_too_many_are_refused(kv: Kv) -> None:
    with pytest.raises(InvalidInput):
        await read(kv)
    with pytest.raises(TooLarge):
        await read(kv, *["a"] * 257)


async def test_paths_that_come_to_more_than_32_kib_are_refused(kv: Kv) -> None:
    """Each is in an audit record, though nothing is there and nobody may read it."""
    await read(kv, *["x" * 512] * 64)
    with pytest.raises(TooLarge, match="32 KiB"):
        await read(kv, *["x" * 512] * 64, "a")
    assert len(kv.pipeline.audited) == 64


async def test_values_beyond_one_mebibyte_are_left_out_in_the_order_of_the_requests(kv: Kv) -> None:
    for name in "abc":
        await kv.write(name, name * (500 << 10))
    await kv.write("small", "s")
    answer = await read(kv, "a", "b", "c", "small")
    kinds = [one.WhichOneof("result") for one in answer.results]
    assert kinds == ["secret", "secret", "error", "error"]
    assert answer.results[2].error.details[0].value.count(b"TOO_LARGE") == 1


async def test_all_secrets_stood_together_at_the_revision_that_is_told(kv: Kv) -> None:
    """One is written before the proof: all are decided again."""
    await kv.write("a", "old a")
    await kv.write("b", "old b")
    other = Kv()
    other.key_client._kek = kv.key_client._kek
    await other.write("a", "old a")
    await other.write("a", "new a")

    def overtake() -> None:
        for key in (keyspace.envelope("a", 2), keyspace.head("a")):
            kv.store.seed(key, other.store.value(key))

    kv.pipeline.before = overtake
    answer = await read(kv, "a", "b")
    assert [one.secret.value for one in answer.results] == ["new a", "old b"]
    assert {one.secret.revision for one in answer.results} == {answer.revision}


async def test_a_batch_is_one_decision_and_unwraps_each_key_once(kv: Kv) -> None:
    for number in range(100):
        await kv.write(f"s/{number}", str(number))
    submitted = 0
    submit = kv.pipeline.submit

    async def counted(work: Any) -> Any:
        nonlocal submitted
        submitted += 1
        return await submit(work)

    kv.pipeline.submit = counted  # type: ignore[method-assign]
    answer = await read(kv, *(f"s/{number}" for number in range(100)), "s/7")
    assert submitted == 1
    assert kv.key_client.unwraps == 100
    assert [one.secret.value for one in answer.results] == [*map(str, range(100)), "7"]


async def test_the_most_secrets_are_read_with_a_lease_each_and_counted(kv: Kv) -> None:
    paths = [f"s/{number}" for number in range(256)]
    for path in paths:
        await kv.write(path)
    kv.pipeline.audited.clear()
    answer = await read(kv, *paths)
    leases = {one.secret.lease.id for one in answer.results}
    assert len(leases) == 256
    assert {key.decode() for key in kv.store.keys(keyspace.READ_LEASES)} == {
        keyspace.read_lease(name).decode() for name in leases
    }
    for kind in (b"token/", b"all/token/"):
        keys = kv.store.keys(keyspace.LEASE_COUNTS + kind)
        assert sum(int(kv.store.value(key) or b"0") for key in keys) == 256
    assert {one.path for one in kv.pipeline.audited} == {f"secret/{path}" for path in paths}
    writes = kv.pipeline.writes
    await read(kv, *paths)
    assert kv.pipeline.writes == writes, "hot reads write no lease"


async def test_of_values_beyond_the_limit_no_envelope_is_looked_at(kv: Kv) -> None:
    paths = [f"s/{number}" for number in range(8)]
    for path in paths:
        await kv.write(path, "x" * (511 << 10))
    fresh = Memory()
    looked = set[bytes]()

    async def watched(work: Any) -> Any:
        kv.store.memory = fresh
        done = await submit(work)
        looked.update(key for key in kv.store.keys(keyspace.KV_ENVELOPES) if fresh.recall(key) is not None)
        return done

    submit = kv.pipeline.submit
    kv.pipeline.submit = watched  # type: ignore[method-assign]
    kv.pipeline.audited.clear()
    answer = await read(kv, *paths)
    assert [one.WhichOneof("result") for one in answer.results] == ["secret"] * 2 + ["error"] * 6
    assert looked == {keyspace.envelope(path, 1) for path in paths[:2]}
    assert [one.reason for one in kv.pipeline.audited] == [""] * 2 + ["TOO_LARGE"] * 6


async def test_who_is_refused_for_every_secret_leaves_no_circle(kv: Kv) -> None:
    """A policy of his token is missing; each result is that refusal, which must not hold the decision."""
    token = kv.add_token(policies=["gone"])
    kept = list[weakref.ref[View]]()
    submit = kv.pipeline.submit

    async def watched(work: Any) -> Any:
        def decide(view: View) -> Any:
            kept.append(weakref.ref(view))
            return work.decide(view)

        return await submit(replace(work, decide=decide))

    kv.pipeline.submit = watched  # type: ignore[method-assign]
    gc.disable()
    try:
        answer = await read(kv, "a", "b", token=token)
        assert [one.error.code for one in answer.results] == [7, 7]  # PERMISSION_DENIED
        await asyncio.sleep(0)
        assert kept
        assert [view() for view in kept] == [None] * len(kept)
    finally:
        gc.enable()
