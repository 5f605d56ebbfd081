"""Many secrets in one call: each its own permission, record and refusal; one revision; at most 1 MiB."""

from __future__ import annotations

import pytest

from services.kv import batch
from strongbox.errors import InvalidInput, Overloaded, Sealed, TooLarge, Unauthenticated
from strongbox.kv.v1 import kv_service_pb2 as pb
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


async def test_values_beyond_one_mebibyte_are_left_out_in_the_order_of_the_requests(kv: Kv) -> None:
    for name in "abc":
        await kv.write(name, name * (500 << 10))
    await kv.write("small", "s")
    answer = await read(kv, "a", "b", "c", "small")
    kinds = [one.WhichOneof("result") for one in answer.results]
    assert kinds == ["secret", "secret", "error", "error"]
    assert answer.results[2].error.details[0].value.count(b"TOO_LARGE") == 1


async def test_all_secrets_stood_together_at_the_revision_that_is_told(kv: Kv) -> None:
    """One is written between the reads: it is read again."""
    await kv.write("a", "old a")
    await kv.write("b", "old b")
    reads = 0
    submit = kv.pipeline.submit

    async def interrupted(work):  # type: ignore[no-untyped-def]
        nonlocal reads
        done = await submit(work)
        reads += 1
        if reads == 2:
            await kv.write("a", "new a")
        return done

    kv.pipeline.submit = interrupted  # type: ignore[method-assign]
    answer = await read(kv, "a", "b")
    assert [one.secret.value for one in answer.results] == ["new a", "old b"]
    assert {one.secret.revision for one in answer.results} == {answer.revision}


async def test_secrets_that_never_hold_still_are_refused_not_told_as_a_mixture(
    kv: Kv, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kv.write("a", "x")
    await kv.write("b", "x")
    real = batch.Batch._prove

    async def moved(self, inbound, results):  # type: ignore[no-untyped-def]
        await kv.write("a", "again")
        return await real(self, inbound, results)

    monkeypatch.setattr(batch.Batch, "_prove", moved)
    with pytest.raises(Overloaded):
        await read(kv, "a", "b")
