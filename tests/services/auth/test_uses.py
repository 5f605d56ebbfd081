"""Tokens with a limited number of uses: each request takes one, and no two have the same."""

from __future__ import annotations

import uuid
from typing import Any, cast

import pytest

from services.auth.tokens import RECENT_USES
from strongbox.access import token_format as access
from strongbox.auth.v1 import auth_peer_service_pb2 as peer_pb
from strongbox.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated, UnknownOutcome
from strongbox.rpc.request_context import UseNeeded
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from tests.services.auth.support import AuthService


@pytest.fixture
def auth() -> AuthService:
    return AuthService()


async def limited(auth: AuthService, uses: int = 2, **fields: Any) -> Any:
    return await auth.call("CreateToken", policies=["app"], num_uses=uses, **fields)


async def take(auth: AuthService, token: str, request_id: str = "") -> int:
    await auth.call("LookupSelf")  # binds a request
    asked = request_id or str(uuid.uuid4())
    request = peer_pb.SpendUseRequest(token_digest=access.digest(token), request_id=asked)
    return int((await auth.peers.SpendUse(request, cast("Any", None))).use)


async def test_a_request_without_a_use_of_its_own_is_refused_and_leaves_no_record(auth: AuthService) -> None:
    made = await limited(auth)
    before = len(auth.pipeline.audited)
    for use in (0, 1, 2, 99, -1):  # none of these was taken
        with pytest.raises(UseNeeded):
            await auth.call("LookupSelf", token=made.token, use=use)
    assert len(auth.pipeline.audited) == before


async def test_uses_are_numbered_and_run_out(auth: AuthService) -> None:
    made = await limited(auth, 2)
    for number in (1, 2):
        assert await take(auth, made.token) == number
        told = await auth.call("LookupSelf", token=made.token, use=number)
        assert (told.num_uses, told.uses_left) == (2, 2 - number)
        assert told.HasField("uses_left")  # 0 left is not "not limited"
    with pytest.raises(Unauthenticated):
        await take(auth, made.token)


async def test_a_request_that_lost_the_answer_is_told_the_use_that_it_has(auth: AuthService) -> None:
    made = await limited(auth, 2)
    assert await take(auth, made.token, "first") == 1
    assert await take(auth, made.token, "first") == 1
    assert await take(auth, made.token, "second") == 2
    assert await take(auth, made.token, "second") == 2  # the last use, and so the token is spent
    for late in ("third", ""):
        with pytest.raises(Unauthenticated):
            await take(auth, made.token, late)


async def test_requests_without_an_id_never_share_a_use(auth: AuthService) -> None:
    made = await limited(auth, 3)
    digest = access.digest(made.token)
    assert [await auth.peers.take(digest, "", 1e12) for _ in range(3)] == [1, 2, 3]


async def test_an_id_names_its_use_only_as_long_as_a_request_lasts(auth: AuthService) -> None:
    made = await limited(auth, 20)
    assert await take(auth, made.token, "request") == 1
    auth.store.now_ms += 10_000
    assert await take(auth, made.token, "request") == 2
    for number in range(3, 13):  # more than are kept
        assert await take(auth, made.token, f"request-{number}") == number
    record = auth.store.run(lambda view: auth.guard.lookup.token(view, access.digest(made.token))).value
    assert len(cast("storage.TokenRecord", record).recent_uses) == RECENT_USES


async def test_an_unknown_outcome_is_looked_up_and_costs_one_use(auth: AuthService) -> None:
    made = await limited(auth, 2)
    submit, failed = auth.pipeline.submit, []

    async def losing(work: Any) -> Any:
        done = await submit(work)
        if not failed:
            failed.append(done)
            raise UnknownOutcome
        return done

    auth.pipeline.submit = losing  # type: ignore[method-assign]
    assert await auth.peers.take(access.digest(made.token), "request", 1e12) == 1
    assert await auth.peers.take(access.digest(made.token), "other", 1e12) == 2


async def test_a_spent_token_is_as_dead_as_an_expired_one_and_can_be_revoked(auth: AuthService) -> None:
    made = await limited(auth, 1)
    await take(auth, made.token)
    for rpc in ("LookupToken", "RenewToken"):
        with pytest.raises(NotFound):
            await auth.call(rpc, accessor=made.accessor)
    assert made.accessor not in (await auth.call("ListTokens")).accessors
    await auth.call("RevokeToken", accessor=made.accessor)
    with pytest.raises(Unauthenticated):
        await auth.call("LookupSelf", token=made.token, use=1)


@pytest.mark.parametrize("end", ["revoke", "expire", "unlimited", "unknown"])
async def test_there_is_no_use_of_what_is_dead_or_has_no_limit(auth: AuthService, end: str) -> None:
    made = await limited(auth, 5, ttl={"number_value": 60})
    token = made.token
    if end == "revoke":
        await auth.call("RevokeToken", accessor=made.accessor)
    elif end == "expire":
        auth.store.now_ms += 60_000
    else:
        token = auth.root if end == "unlimited" else access.new_token()
    with pytest.raises(Unauthenticated):
        await take(auth, token)


async def test_a_limited_token_makes_no_others(auth: AuthService) -> None:
    auth.put_policy("app", {"auth/tokens": "write sudo"})
    made = await limited(auth, 9)
    use = await take(auth, made.token)
    for fields in ({}, {"orphan": True}):
        with pytest.raises(PermissionDenied):
            await auth.call("CreateToken", token=made.token, use=use, policies=["app"], **fields)


async def test_renewing_keeps_what_was_spent(auth: AuthService) -> None:
    made = await limited(auth, 3)
    await take(auth, made.token)
    await auth.call("RenewToken", accessor=made.accessor, increment={"string_value": "2h"})
    assert (await auth.call("LookupToken", accessor=made.accessor)).uses_left == 2
    assert await take(auth, made.token) == 2


async def test_a_forged_count_is_a_forged_token(auth: AuthService) -> None:
    made = await limited(auth, 1)
    key = keyspace.token(access.digest(made.token))
    record = storage.AuthenticatedRecord.FromString(auth.store.value(key) or b"")
    token = storage.TokenRecord.FromString(record.body)
    token.num_uses = 0
    record.body = token.SerializeToString()
    auth.store.seed(key, record.SerializeToString())
    with pytest.raises(Unauthenticated):
        await take(auth, made.token)
    with pytest.raises(Unauthenticated):
        await auth.call("LookupSelf", token=made.token)


@pytest.mark.parametrize("number", [-1, 1_000_001])
async def test_a_number_of_uses_is_bounded(auth: AuthService, number: int) -> None:
    with pytest.raises(InvalidInput):
        await limited(auth, number)
