"""A seal that answers while auth has made something: nobody gets it, and it ends by its own time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.auth.logins.secret_ids import DEFAULT_TTL_S
from strongbox.errors import UnknownOutcome
from strongbox.store import keyspace
from tests.services.auth.support import PASSWORD
from tests.services.auth.test_approle_logins import Machines
from tests.services.auth.test_kubernetes_logins import configured, enter
from tests.services.auth.test_quotas import tidy
from tests.support.api_server import ApiServer

Making = Callable[[], Awaitable[Any]]


async def calls_of(auth: Machines, server: ApiServer) -> dict[str, Making]:
    """Everything by which auth hands out a secret."""
    await auth.user()
    role_id = await auth.role()
    made = await auth.secret_id()
    await configured(auth, server)
    return {
        "CreateToken": lambda: auth.call("CreateToken", policies=["app"]),
        "CreateSecretId": auth.secret_id,
        "LoginUser": lambda: auth.login("alice", PASSWORD),
        "LoginAppRole": lambda: auth.enter(role_id, made.secret_id),
        "LoginKubernetes": lambda: enter(auth, server.token("team", "app")),
    }


@pytest.mark.parametrize("how", ["heard", "stopped"])
@pytest.mark.parametrize(
    "name", ["CreateToken", "CreateSecretId", "LoginUser", "LoginAppRole", "LoginKubernetes"]
)
async def test_what_is_made_is_not_handed_out_and_ends_by_its_own_time(name: str, how: str) -> None:
    auth = Machines()
    with ApiServer() as server:
        making = (await calls_of(auth, server))[name]
        kind = keyspace.SECRET_IDS if name == "CreateSecretId" else keyspace.TOKENS
        before = set(auth.store.keys(kind))

        def meanwhile() -> None:
            if not set(auth.store.keys(kind)) - before:
                return  # an earlier transaction of the call
            if how == "heard":
                auth.key_client.seal()
            else:
                auth.key_client.stale = True

        auth.pipeline.after = meanwhile
        with pytest.raises(UnknownOutcome, match="not handed out"):
            await making()
        (left,) = set(auth.store.keys(kind)) - before
        auth.pipeline.after, auth.key_client.record_keys, auth.key_client.stale = None, auth.keys, False
        auth.store.now_ms += (DEFAULT_TTL_S + 60) * 1000
        tidy(auth)
        assert left not in auth.store.keys(kind)
