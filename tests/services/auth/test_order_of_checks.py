"""Rules are compared, certificates parsed, passwords hashed and keys wrapped for who may ask for it."""

from __future__ import annotations

from typing import Any

import pytest

from strongbox.errors import InvalidInput, PermissionDenied, StrongBoxError, Unauthenticated
from tests.services.auth.support import PASSWORD, AuthService
from tests.support.samples import FIELDS

NEVER_MATCHES = [{"path": "nowhere/*", "capabilities": ["read"]}]
JUNK = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
HOST = "https://127.0.0.1:1"


@pytest.fixture
def auth() -> AuthService:
    return AuthService()


def callers(auth: AuthService) -> dict[str, type[StrongBoxError]]:
    """Tokens, and how each is refused."""
    return {"": Unauthenticated, "junk": Unauthenticated, auth.add_token(policies=["app"]): PermissionDenied}


@pytest.mark.parametrize(
    ("rpc", "fields"),
    [
        ("WritePolicy", {"name": "p", "rules": NEVER_MATCHES}),
        ("WriteKubernetesConfig", {"host": HOST, "ca_cert": JUNK}),
        ("WriteKubernetesConfig", {"host": "not a host", "ca_cert": JUNK}),
    ],
)
async def test_what_is_wrong_in_a_request_is_not_told_to_who_is_not_let_in(
    auth: AuthService, rpc: str, fields: dict[str, Any]
) -> None:
    for token, refusal in callers(auth).items():
        with pytest.raises(refusal):
            await auth.call(rpc, token=token, **fields)
    with pytest.raises(InvalidInput):
        await auth.call(rpc, **fields)


async def test_no_key_is_wrapped_and_no_password_hashed_for_who_is_not_let_in(auth: AuthService) -> None:
    config = {**FIELDS["WriteKubernetesConfig"], "token_reviewer_jwt": "e30.e30.e30"}
    calls = {"WriteKubernetesConfig": config, "WriteUser": {"name": "bob", "password": PASSWORD}}
    for token, refusal in callers(auth).items():
        for rpc, fields in calls.items():
            with pytest.raises(refusal):
                await auth.call(rpc, token=token, **fields)
    assert (auth.key_client.wraps, auth.passwords.hashed) == (0, 0)
    for rpc, fields in calls.items():
        await auth.call(rpc, **fields)
    assert (auth.key_client.wraps, auth.passwords.hashed) == (1, 1)
