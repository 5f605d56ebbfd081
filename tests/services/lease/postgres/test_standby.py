"""A standby takes no writes, and what it does not have yet is not gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.lease.postgres.failures import LoginRefused
from strongbox.dev.layout import POSTGRES
from tests.services.lease.postgres.test_jobs import database_of, removing, role_named
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module")
def standby() -> Iterator[PostgresServer]:
    """A server that was stopped, and came back as the standby of nobody: it waits for more to replay."""
    with PostgresServer() as server:
        server.kill()
        (server.folder / POSTGRES / "data" / "standby.signal").touch()
        server.start()
        assert server.ask("SELECT pg_is_in_recovery()") == [(True,)]
        yield server


async def test_a_role_that_a_standby_lacks_is_not_taken_for_gone(standby: PostgresServer) -> None:
    database, role = database_of(standby), role_named()
    with pytest.raises(LoginRefused, match="standby"):
        await database.run(removing(role), 5)
    database.close()
