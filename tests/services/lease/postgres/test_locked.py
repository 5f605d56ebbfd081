"""A credential whose table somebody has locked keeps no other from going, and goes when it can."""

from __future__ import annotations

import time

import pytest

from services.lease.postgres import scram
from services.lease.postgres.answer_deadline import deadline
from services.lease.postgres.connection_pool import Database
from services.lease.postgres.ending import drop_roles
from services.lease.postgres.errors import Rejected
from services.lease.postgres.login_roles import Role
from tests.services.lease.postgres.test_jobs import creating, database_of, removing, role_named
from tests.support.postgres import PostgresServer


@pytest.fixture
async def roles(postgres: PostgresServer) -> list[Role]:
    """Eight of one template; the four in the middle own a table each."""
    if not postgres.ask("SELECT 1 FROM pg_roles WHERE rolname = 'locked_template'"):
        postgres.ask("CREATE ROLE locked_template NOLOGIN; GRANT CREATE ON SCHEMA public TO locked_template")
    database, made = database_of(postgres), sorted((role_named() for _ in range(8)), key=lambda r: r.username)
    for role in made:
        password = scram.new_password()
        await database.run(creating(role, password, template="locked_template"), 5)
        if role in made[2:6]:
            postgres.ask(f"CREATE TABLE of_{role.username} (x int)", user=role.username, password=password)
    database.close()
    return made


async def _removed(database: Database, wanted: list[Role], seconds: float) -> dict[str, str]:
    return await database.run(removing(*wanted), seconds)


async def test_a_locked_table_keeps_its_own_role_alone(postgres: PostgresServer, roles: list[Role]) -> None:
    database, names = database_of(postgres), {role.username for role in roles}
    locked = {role.username for role in roles[2:6]}
    with postgres.open() as peer:
        peer.ask("BEGIN; " + "; ".join(f"LOCK TABLE of_{name}" for name in sorted(locked)))
        begun = time.monotonic()
        still = await _removed(database, roles, 4.0)
        assert time.monotonic() - begun < 4
        assert still.keys() == locked
        assert all("locked" in why for why in still.values())
        assert postgres.roles().keys() & names == locked
        for name in locked:
            assert postgres.ask("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", name) == [(False,)]
        peer.ask("ROLLBACK")
    assert await _removed(database, roles, 4.0) == {}
    assert not postgres.roles().keys() & names
    for name in locked:
        assert postgres.ask(f"DROP TABLE of_{name}") == []
    database.close()


async def test_a_lock_that_ends_soon_is_waited_for(postgres: PostgresServer, roles: list[Role]) -> None:
    database = database_of(postgres)
    with postgres.open() as peer:
        peer.ask(f"BEGIN; LOCK TABLE of_{roles[2].username}")
        peer.ask("SET LOCAL idle_in_transaction_session_timeout = '2300ms'")  # PostgreSQL ends it
        assert await _removed(database, roles, 4.0) == {}
    for role in roles[2:6]:
        postgres.ask(f"DROP TABLE of_{role.username}")
    assert await database.run(lambda desk: desk.session.ask("SHOW lock_timeout"), 5) == [("2s",)]
    database.close()


def test_what_there_is_no_time_for_is_told_and_costs_the_others_nothing() -> None:
    gone: list[str] = []
    one, two, three = [role_named() for _ in range(3)]

    def removing(role: Role) -> None:
        if role is two:
            time.sleep(0.4)
            raise Rejected("locked")
        gone.append(role.username)

    with deadline(time.monotonic() + drop_roles.RESERVE + 0.3):
        told = drop_roles._each([one, two, three], removing)
    assert gone == [one.username]
    assert told.keys() == {two.username, three.username}
    assert told[two.username] == "locked"
