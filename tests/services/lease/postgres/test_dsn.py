"""Where a server is: what a URL may say, and what libpq is told."""

from __future__ import annotations

import pytest

from services.lease.postgres.dsn import parse_server
from strongbox.errors import InvalidInput


def test_a_server_elsewhere_is_verified_unless_the_url_says_otherwise() -> None:
    assert parse_server("postgresql://db.example/app").sslmode == "verify-full"
    assert parse_server("postgresql://db.example/app?sslmode=require").sslmode == "require"
    assert parse_server("postgresql://127.0.0.1:5433/app").sslmode == "prefer"


def test_a_false_server_is_never_told_the_password_itself() -> None:
    assert parse_server("postgres://h/x").parameters()["require_auth"] == "scram-sha-256,md5"


def test_several_hosts_and_an_escaped_database_are_taken() -> None:
    server = parse_server("postgresql://a:1,b:2/my%20db?target_session_attrs=read-write&sslmode=require")
    assert (server.host, server.port, server.database) == ("a,b", "1,2", "my db")


@pytest.mark.parametrize("text", ["postgresql://h/x?password=hunter2", "postgresql://u:hunter2@h/x"])
def test_a_password_in_the_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_server(text)
    assert "hunter2" not in refusal.value.message
