"""The password of a connection's user: forgotten only when a login by another was seen."""

from __future__ import annotations

import secrets

import pytest

from services.lease.postgres import catalog
from strongbox.errors import DependencyDown, Unauthenticated
from tests.services.lease.workshop import FixedSeal, Workshop
from tests.support.postgres import PostgresServer


async def connection_of(shop: Workshop, postgres: PostgresServer, more: str = "") -> tuple[str, str]:
    """A connection by a user of its own; returns the user's name and that of another role."""
    user, other = f"u{secrets.token_hex(4)}", f"o{secrets.token_hex(4)}"
    postgres.ask(f"CREATE ROLE {other} LOGIN CREATEROLE PASSWORD 'others'")
    postgres.ask(f"CREATE ROLE {user} LOGIN CREATEROLE PASSWORD 'mine'; GRANT {other} TO {user}")
    if more:
        postgres.ask(more.format(user=user, other=other))
    await shop.call("WritePostgresConnection", name=user, dsn=postgres.dsn, username=user, password="mine")
    return user, other


async def test_it_is_the_password_of_who_logged_in_that_changes(
    shop: Workshop, postgres: PostgresServer
) -> None:
    user, other = await connection_of(shop, postgres, "ALTER ROLE {user} SET role = '{other}'")
    await shop.call("RotatePostgresRoot", name=user)
    assert postgres.logs_in(other, "others")
    assert not postgres.logs_in(user, "mine")
    await shop.call("RotatePostgresRoot", name=user)  # by the password that was kept


async def test_a_change_without_effect_forgets_nothing(
    shop: Workshop, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler with passwords of its own, or for another role."""
    user, _ = await connection_of(shop, postgres)
    with monkeypatch.context() as patched:
        patched.setattr(catalog, "change_password", lambda *_: None)
        with pytest.raises(DependencyDown, match="changed back"):
            await shop.call("RotatePostgresRoot", name=user)
    assert postgres.logs_in(user, "mine")
    await shop.call("RotatePostgresRoot", name=user)
    assert not postgres.logs_in(user, "mine")


async def test_who_may_not_change_it_has_no_key_wrapped(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wrapped(*_: object) -> None:
        pytest.fail("a key was wrapped for who may not ask")

    monkeypatch.setattr(FixedSeal, "wrap", wrapped)
    shop.root = "sbx_" + "0" * 43
    with pytest.raises(Unauthenticated):
        await shop.call("RotatePostgresRoot", name="c")
