"""Roles made, renewed and taken away on a real server, by a superuser and by one who may only make roles."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import psycopg2
import pytest

from services.lease.connections import database_roles
from services.lease.postgres import catalog, dsn, login_roles, scram
from services.lease.postgres.connection_pool import FRESH, Database, Desk, Login
from services.lease.postgres.ending import drop_roles
from services.lease.postgres.errors import LoginRefused, PostgresFailure, Rejected, Unreachable
from services.lease.postgres.login_roles import Role
from strongbox.errors import InvalidInput
from tests.support.postgres import PASSWORD, PostgresServer

T = TypeVar("T")
MAKER = "maker-password"


def role_named(name: str = "") -> Role:
    return Role(name or f"sb_{secrets.token_hex(8)}", f"strongbox:test:{secrets.token_hex(8)}")


def database_of(server: PostgresServer, user: str = "postgres", password: str = PASSWORD) -> Database:
    async def passwords() -> list[str]:
        return [password]

    return Database(Login(dsn.parse_server(server.dsn), user), passwords)


@pytest.fixture(params=["superuser", "maker"])
async def database(request: pytest.FixtureRequest, postgres: PostgresServer) -> AsyncIterator[Database]:
    """As seen by a superuser, and by a user with CREATEROLE that may give the template away."""
    if not postgres.ask("SELECT 1 FROM pg_roles WHERE rolname = 'maker'"):
        postgres.ask("CREATE ROLE template NOLOGIN")
        postgres.ask("CREATE ROLE maker LOGIN CREATEROLE PASSWORD %s", MAKER)
        postgres.ask("GRANT template TO maker WITH ADMIN OPTION; GRANT CREATE ON SCHEMA public TO template")
    made = database_of(postgres) if request.param == "superuser" else database_of(postgres, "maker", MAKER)
    yield made
    made.close()


def database_is_superusers(database: Database) -> bool:
    return database._login.user == "postgres"


def creating(
    role: Role, password: str, ttl_s: int = 60, template: str = "template"
) -> Callable[[Desk], None]:
    return lambda desk: login_roles.create(
        desk.session, role, template, scram.verifier(password), ttl_s, login_roles.issuer_of("p" + "0" * 40)
    )


def removing(*wanted: Role) -> Callable[[Desk], dict[str, str]]:
    return lambda desk: drop_roles.remove(desk.session, desk.enter, list(wanted))


async def test_a_role_logs_in_and_after_its_removal_is_gone_with_its_sessions(
    database: Database, postgres: PostgresServer
) -> None:
    role, password = role_named(), scram.new_password()
    await database.run(creating(role, password), 5)
    session = postgres.open(role.username, password)
    assert session.ask("SELECT current_user") == [(role.username,)]
    assert postgres.roles()[role.username] == role.comment
    for _ in range(2):  # again is the same
        assert await database.run(removing(role), 5) == {}
    assert role.username not in postgres.roles()
    with pytest.raises(psycopg2.Error):
        session.ask("SELECT 1")


async def test_what_a_role_owns_in_several_databases_stays_and_is_its_templates(
    database: Database, postgres: PostgresServer
) -> None:
    other = f"other_{secrets.token_hex(4)}"
    postgres.ask(f"CREATE DATABASE {other}")
    role, password = role_named(), scram.new_password()
    await database.run(creating(role, password), 5)
    table = f"t_{secrets.token_hex(4)}"
    with postgres.open(role.username, password) as session:
        session.ask(f"CREATE TABLE {table} (x int); INSERT INTO {table} VALUES (7)")
        session.ask(f"BEGIN; LOCK TABLE {table}")
        if database_is_superusers(database):  # what others granted only they, or a superuser, can take back
            postgres.ask(f'GRANT CREATE ON SCHEMA public TO "{role.username}"', database=other)
        postgres.ask(f"CREATE TABLE mine (x int); ALTER TABLE mine OWNER TO {role.username}", database=other)
        assert await database.run(removing(role), 5) == {}
    assert role.username not in postgres.roles()
    assert postgres.ask(f"SELECT x FROM {table}") == [(7,)]
    owners = postgres.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'", database=other)
    assert owners == [("template",)]


async def test_a_role_that_cannot_go_keeps_no_other(database: Database, postgres: PostgresServer) -> None:
    good, bad = [role_named() for _ in range(3)], role_named()
    for role in (*good, bad):
        await database.run(creating(role, scram.new_password()), 5)
    postgres.ask(f"COMMENT ON ROLE {bad.username} IS 'somebody has changed this'")
    still = await database.run(removing(*good, bad), 5)
    assert list(still) == [bad.username]
    assert not postgres.roles().keys() & {role.username for role in good}
    postgres.ask(f"DROP ROLE {bad.username}")


@pytest.mark.parametrize(
    "name", ['t"; DROP TABLE x; --', "t; x", "Ünï cödé", "'", "x" * 63, "%s", "CamelCase"]
)
async def test_names_are_quoted_whatever_is_in_them(postgres: PostgresServer, name: str) -> None:
    quoted = name.replace('"', '""')
    postgres.ask(f'CREATE ROLE "{quoted}" NOLOGIN')
    database, role = database_of(postgres), role_named()
    await database.run(creating(role, scram.new_password(), template=name), 5)
    members = postgres.ask(
        "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid"
        " JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = %s",
        role.username,
    )
    assert members == [(name,)]
    assert await database.run(removing(role), 5) == {}
    postgres.ask(f'DROP ROLE "{quoted}"')
    database.close()


async def test_forty_roles_at_once_do_not_stumble_over_each_other(
    database: Database, postgres: PostgresServer
) -> None:
    some = [role_named() for _ in range(40)]
    await asyncio.gather(*(database.run(creating(role, scram.new_password()), 20) for role in some))
    assert {role.username for role in some} <= postgres.roles().keys()
    halves = (database.run(removing(*some[start::2]), 20) for start in (0, 1))
    assert await asyncio.gather(*halves) == [{}, {}]
    assert not postgres.roles().keys() & {role.username for role in some}


async def test_a_role_is_renewed_by_the_servers_clock(database: Database, postgres: PostgresServer) -> None:
    role, password = role_named(), scram.new_password()
    await database.run(creating(role, password, 1), 5)
    assert postgres.logs_in(role.username, password)
    await asyncio.sleep(1.2)
    assert not postgres.logs_in(role.username, password)
    assert await database.run(lambda desk: login_roles.renew(desk.session, role, 60), 5)
    assert postgres.logs_in(role.username, password)
    await database.run(removing(role), 5)
    assert not await database.run(lambda desk: login_roles.renew(desk.session, role, 60), 5)


async def test_a_renewal_takes_no_time_away(database: Database, postgres: PostgresServer) -> None:
    """Whichever comes last: the longer one may have been acknowledged."""

    def renewing(seconds: int) -> Callable[[Desk], bool]:
        return lambda desk: login_roles.renew(desk.session, role, seconds)

    role, password = role_named(), scram.new_password()
    await database.run(creating(role, password, 1), 5)
    for seconds in (600, 1):
        assert await database.run(renewing(seconds), 5)
    await asyncio.sleep(1.2)
    assert postgres.logs_in(role.username, password)
    assert all(await asyncio.gather(*(database.run(renewing(s), 5) for s in (900, 5, 3600, 2, 60, 7))))
    left = "SELECT extract(epoch FROM rolvaliduntil - now()) FROM pg_roles WHERE rolname = %s"
    assert postgres.ask(left, role.username)[0][0] > 3500
    await database.run(removing(role), 5)


async def test_a_renewal_that_waited_sees_what_it_waited_for_whatever_the_servers_default(
    postgres: PostgresServer,
) -> None:
    """Under REPEATABLE READ it would go by how long the role was valid when the waiting began."""
    role, database = role_named(), database_of(postgres)
    await database.run(creating(role, scram.new_password(), template="pg_monitor"), 5)
    database.close()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    waiting += " AND wait_event = 'transactionid'"
    postgres.ask("ALTER ROLE postgres SET default_transaction_isolation = 'repeatable read'")
    database = database_of(postgres)
    try:
        with postgres.open() as peer:
            peer.ask("BEGIN")
            peer.ask(f"ALTER ROLE {role.username} VALID UNTIL '2099-01-01'")
            short = asyncio.create_task(
                database.run(lambda desk: login_roles.renew(desk.session, role, 60), 10)
            )
            while postgres.ask(waiting) != [(1,)]:  # as long as the test's own time limit
                await asyncio.sleep(0.02)
            # Any credential could hold one of those, and its own or another's renewal would wait for it.
            assert postgres.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
            peer.ask("COMMIT")
            assert await short
        until = "SELECT extract(year FROM rolvaliduntil)::int FROM pg_roles WHERE rolname = %s"
        assert postgres.ask(until, role.username) == [(2099,)]
    finally:
        postgres.ask("ALTER ROLE postgres RESET default_transaction_isolation")
    await database.run(removing(role), 5)
    database.close()


async def test_a_template_that_does_not_exist_makes_nothing(
    database: Database, postgres: PostgresServer
) -> None:
    role = role_named()
    with pytest.raises(Rejected):
        await database.run(creating(role, scram.new_password(), template="nobody"), 5)
    assert role.username not in postgres.roles()


async def test_a_wrong_password_is_told_apart_from_a_server_that_is_away(postgres: PostgresServer) -> None:
    with pytest.raises(LoginRefused):
        await database_of(postgres, password="wrong").run(lambda desk: None, 5)
    known = database_of(postgres)
    nobody = Database(Login(dsn.parse_server("postgresql://127.0.0.1:1/x"), "u"), known._passwords)
    started = time.monotonic()
    with pytest.raises(Unreachable):
        await nobody.run(lambda desk: None, 5)
    with pytest.raises(Unreachable):  # at once, without another try
        nobody.require_reachable()
    assert time.monotonic() - started < 2


async def test_who_may_not_make_roles_is_refused_when_a_connection_is_saved(postgres: PostgresServer) -> None:
    postgres.ask("CREATE ROLE weak LOGIN PASSWORD 'weak-password'")
    with pytest.raises(Rejected, match="may it create roles"):
        await database_of(postgres, "weak", "weak-password").run(lambda desk: catalog.check(desk.session), 5)
    assert (await database_of(postgres).run(lambda desk: catalog.check(desk.session), 5))[:2].isdigit()


async def test_a_frozen_server_costs_no_more_than_the_deadline() -> None:
    with PostgresServer() as server:
        database = database_of(server)
        await database.run(lambda desk: None, 5)
        server.freeze()
        try:
            for _ in range(2):  # in a session that is open, then in one that is not
                started = time.monotonic()
                with pytest.raises(PostgresFailure):
                    await database.run(creating(role_named(), scram.new_password()), 0.7)
                assert time.monotonic() - started < 2
        finally:
            server.freeze(thaw=True)
        await asyncio.sleep(1.1)  # the pause after a failure
        await database.run(lambda desk: None, 5)
        database.close()


async def test_a_session_that_broke_since_is_replaced_before_anything_is_changed() -> None:
    with PostgresServer() as server:
        server.ask("CREATE ROLE template NOLOGIN")
        database = database_of(server)
        await database.run(lambda desk: None, 5)
        ours = "application_name = 'strongbox'"
        server.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
        await asyncio.sleep(FRESH)
        role = role_named()
        await database.run(creating(role, scram.new_password()), 5)
        assert role.username in server.roles()
        database.close()


async def test_a_user_changes_its_own_password(postgres: PostgresServer) -> None:
    postgres.ask("CREATE ROLE changing LOGIN CREATEROLE PASSWORD 'before-password'")
    database = database_of(postgres, "changing", "before-password")
    verifier = scram.verifier("after-password")
    await database.run(lambda desk: catalog.change_password(desk.session, desk.user, verifier), 5)
    assert postgres.logs_in("changing", "after-password")
    assert not postgres.logs_in("changing", "before-password")
    database.close()


async def test_a_job_that_meets_a_server_being_forgotten_is_refused_as_by_one_that_is_away(
    postgres: PostgresServer,
) -> None:
    """Its connection was written anew, or the cluster was sealed, between two awaits of the job."""
    database = database_of(postgres)
    known = database._passwords

    async def forgotten() -> list[str]:
        database.close()
        return await known()

    database._passwords = forgotten
    with pytest.raises(Unreachable):
        await database.run(lambda desk: None, 5)
    with pytest.raises(Unreachable):
        await database.run(lambda desk: None, 5)
    assert database._known is None
    assert not database._room.locked()


async def test_a_template_has_to_be_there_and_to_be_given_away(
    database: Database, postgres: PostgresServer
) -> None:
    await database.run(lambda desk: catalog.require_template(desk.session, "template"), 5)
    with pytest.raises(Rejected, match="does not exist"):
        await database.run(lambda desk: catalog.require_template(desk.session, "nobody"), 5)
    if not database_is_superusers(database):
        with pytest.raises(Rejected, match="ADMIN OPTION"):
            await database.run(lambda desk: catalog.require_template(desk.session, "pg_monitor"), 5)


@pytest.mark.parametrize("name", ["none", "public"])
def test_a_template_is_no_reserved_word(name: str) -> None:
    with pytest.raises(InvalidInput):
        database_roles.require_template(name)


async def test_a_process_with_more_than_a_thousand_open_files_asks_as_well(
    database: Database, postgres: PostgresServer
) -> None:
    """select() knows no file above 1023."""
    role, password = role_named(), scram.new_password()
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        await database.run(creating(role, password), 5)
    finally:
        for file in files:
            os.close(file)
    assert role.username in postgres.roles()
