"""A standby takes no writes, and what it does not have yet is not gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.lease.postgres import login_roles
from services.lease.postgres.connection_pool import Desk
from services.lease.postgres.errors import LoginRefused
from strongbox.dev.layout import POSTGRES
from tests.services.lease.postgres.test_jobs import database_of, removing, role_named
from tests.support.postgres import PostgresServer

ROLE = role_named()


@pytest.fixture(scope="module")
def standby() -> Iterator[PostgresServer]:
    """A server that was stopped, and came back as the standby of nobody: it waits for more to replay."""
    with PostgresServer() as server:
        server.kill()
        (server.folder / POSTGRES / "data" / "standby.signal").touch()
        server.start()
        assert server.ask("SELECT pg_is_in_recovery()") == [(True,)]
        yield server


@pytest.mark.parametrize(
    "job",
    [removing(ROLE), lambda desk: login_roles.renew(desk.session, ROLE, 60)],
    ids=["removed", "renewed"],
)
async def test_a_role_that_a_standby_lacks_is_not_taken_for_gone(
    standby: PostgresServer, job: Callable[[Desk], object]
) -> None:
    database = database_of(standby)
    with pytest.raises(LoginRefused, match="standby"):
        await database.run(job, 5)
    database.close()
