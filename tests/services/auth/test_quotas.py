"""What one caller may keep alive: tokens of a tree and of a login, secret ids of a role."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from services.auth import tidy_decisions
from services.auth.logins.secret_ids import SecretIds
from services.auth.quotas import Quotas
from services.auth.repository import Repository, digest_of_due
from strongbox.access import token_format as access
from strongbox.errors import QuotaExceeded
from strongbox.store import keyspace
from tests.services.auth.support import AuthService

PER_PART = 2
LIMIT = 16 * PER_PART


class Fence:
    """A term that lasts."""

    def require(self, view: Any, /) -> None:
        """It does."""


@pytest.fixture
def auth() -> AuthService:
    service = AuthService(Quotas(LIMIT, LIMIT))
    service.put_policy("maker", {"auth/tokens": "write sudo", "auth/approles/web/secret-id": "write delete"})
    return service


async def until_refused(make: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Make some until it is refused: when one of sixteen parts is full, at the latest at the limit."""
    made: list[Any] = []
    while len(made) <= LIMIT:
        try:
            made.append(await make())
        except QuotaExceeded:
            return made
    raise AssertionError("it was never refused")


async def fill(auth: AuthService, token: str, **fields: Any) -> list[Any]:
    """Make tokens by `token` until it is refused."""
    made = await until_refused(lambda: auth.call("CreateToken", token=token, policies=["maker"], **fields))
    assert len(made) >= PER_PART
    return made


def counted(auth: AuthService) -> int:
    rows = auth.store.range(keyspace.AUTH_COUNTS, keyspace.prefix_end(keyspace.AUTH_COUNTS))
    return sum(int(row.value) for row in rows)


def tidy(auth: AuthService) -> None:
    """What the duty does, until nothing is due."""
    repository, fence = Repository(auth.guard.lookup), Fence()
    secret_ids = SecretIds(auth.guard.lookup)
    for index in tidy_decisions.INDEXES:
        for start, end in tidy_decisions.due_ranges(index, auth.store.now_ms):
            keys = [row.key for row in auth.store.range(start, end, tidy_decisions.SLICE)]
            if not keys:
                continue
            if index == keyspace.SECRET_IDS_DUE:
                auth.store.run(
                    lambda view, keys=keys: tidy_decisions.settle_secret_ids(view, fence, secret_ids, keys)
                )
                continue
            done = auth.store.run(
                lambda view, keys=keys: tidy_decisions.settle(view, fence, repository, keys)
            )
            for parent in cast("list[tidy_decisions.Bereaved]", done.value):
                below = keyspace.child(parent.accessor, "")
                children = [row.key for row in auth.store.range(below, keyspace.prefix_end(below))]
                auth.store.run(
                    lambda view, keys=children: tidy_decisions.revoke_children(view, fence, repository, keys)
                )
                assert digest_of_due(parent.key)


async def test_a_token_keeps_only_so_many_alive_and_its_children_make_no_room(auth: AuthService) -> None:
    maker = await auth.call("CreateToken", policies=["maker"])
    made = await fill(auth, maker.token)
    assert counted(auth) == len(made)
    await until_refused(lambda: auth.call("CreateToken", token=made[0].token, policies=["maker"]))
    assert counted(auth) <= LIMIT


async def test_orphans_count_for_their_maker(auth: AuthService) -> None:
    maker = await auth.call("CreateToken", policies=["maker"])
    await fill(auth, maker.token, orphan=True)


async def test_the_root_token_makes_as_many_as_it_likes_and_each_has_a_quota_of_its_own(
    auth: AuthService,
) -> None:
    first = await auth.call("CreateToken", policies=["maker"])
    await fill(auth, first.token)
    for _ in range(LIMIT + 1):
        second = await auth.call("CreateToken", policies=["maker"])
    await auth.call("CreateToken", token=second.token, policies=["maker"])


async def test_what_is_revoked_or_expired_gives_its_place_back(auth: AuthService) -> None:
    maker = await auth.call("CreateToken", policies=["maker"], ttl={"string_value": "2h"})
    made = await fill(auth, maker.token)
    await auth.call("RevokeToken", accessor=made[0].accessor)
    await auth.call("RevokeToken", accessor=made[0].accessor)  # the revoked is not given back twice
    assert counted(auth) == len(made) - 1
    auth.store.now_ms += 3_700_000  # an hour, and the minute of the due index
    tidy(auth)
    assert counted(auth) == 0
    await auth.call("CreateToken", token=maker.token, policies=["maker"])


async def test_the_children_of_a_revoked_token_give_their_places_back(auth: AuthService) -> None:
    maker = await auth.call("CreateToken", policies=["maker"])
    await fill(auth, maker.token)
    await auth.call("RevokeToken", accessor=maker.accessor)
    tidy(auth)
    assert counted(auth) == 0


async def test_using_and_renewing_a_token_counts_nothing(auth: AuthService) -> None:
    maker = await auth.call("CreateToken", policies=["maker"])
    made = await auth.call("CreateToken", token=maker.token, policies=["maker"], num_uses=5)
    await auth.call("RenewToken", accessor=made.accessor, increment={"string_value": "2h"})
    await auth.peers.take(access.digest(made.token), "some-request", 1e9)
    assert counted(auth) == 1


async def test_logins_of_a_user_are_limited_and_told_so(auth: AuthService) -> None:
    await auth.user(policies=["maker"])
    await auth.user("bob", policies=["maker"])
    logins = await until_refused(auth.login)
    assert auth.recorded("LoginUser")[-1] == ("auth/users/alice", "refused", "QUOTA_EXCEEDED")
    before = counted(auth)
    await auth.login("bob")
    # What a login gave makes no room either.
    await until_refused(lambda: auth.call("CreateToken", token=logins[0].token, policies=["maker"]))
    assert counted(auth) <= before + 1 + LIMIT


async def test_secret_ids_of_a_role_are_limited_and_given_back(auth: AuthService) -> None:
    role = await auth.call("WriteAppRole", name="web", policies=["app"], secret_id_ttl={"string_value": "1h"})
    made = await until_refused(lambda: auth.call("CreateSecretId", name="web"))
    assert counted(auth) == len(made)
    await auth.call("RevokeSecretId", name="web", accessor=made[0].accessor)
    assert counted(auth) == len(made) - 1
    login = await auth.call("LoginAppRole", role_id=role.role_id, secret_id=made[1].secret_id)
    assert counted(auth) == len(made)  # one token of the role's
    await auth.call("RevokeToken", accessor=login.accessor)
    auth.store.now_ms += 3_700_000
    tidy(auth)
    assert counted(auth) == 0


async def test_a_record_that_nobody_counted_is_not_given_back(auth: AuthService) -> None:
    maker = await auth.call("CreateToken", policies=["maker"])
    await auth.call("CreateToken", token=maker.token, policies=["maker"])
    old = auth.add_token(policies=["app"], parent=maker.accessor, expires_ms=auth.store.now_ms + 1000)
    digest = access.digest(old)
    found = auth.store.run(lambda view: auth.guard.lookup.token(view, digest)).value
    await auth.call("RevokeToken", accessor=cast("Any", found).accessor)
    assert counted(auth) == 1
