"""A credential that does what it can against its own end, or another's, by both kinds of connection."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import psycopg2
import pytest

from services.lease.postgres import scram
from services.lease.postgres.database import Database
from services.lease.postgres.roles import Role
from tests.services.lease.postgres.test_jobs import (
    MAKER,
    creating,
    database_is_superusers,
    database_of,
    removing,
    role_named,
)
from tests.support.postgres import Peer, PostgresServer

TEMPLATE = "resisting_template"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that takes prepared transactions, where everybody may create in `public` (the rule until 14)."""
    with PostgresServer() as made:
        made.ask("ALTER SYSTEM SET max_prepared_transactions = 8")
        made.kill()
        made.start()
        made.ask(f"CREATE ROLE {TEMPLATE} NOLOGIN; GRANT CREATE ON SCHEMA public TO PUBLIC")
        made.ask(f"GRANT CREATE ON DATABASE postgres TO {TEMPLATE}")
        made.ask("CREATE ROLE maker LOGIN CREATEROLE PASSWORD %s", MAKER)
        made.ask(f"GRANT {TEMPLATE} TO maker WITH ADMIN OPTION")
        yield made


@pytest.fixture(params=["superuser", "maker"])
async def database(request: pytest.FixtureRequest, server: PostgresServer) -> AsyncIterator[Database]:
    made = database_of(server) if request.param == "superuser" else database_of(server, "maker", MAKER)
    yield made
    made.close()


class Credential:
    """A role and its password."""

    def __init__(self, server: PostgresServer) -> None:
        self.server, self.password = server, scram.new_password()
        known = role_named()
        self.role = Role(known.username, known.comment, TEMPLATE)
        self.name = self.role.username

    def open(self) -> Peer:
        return self.server.open(self.name, self.password)

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        return list(self.server.ask(statement, user=self.name, password=self.password))


async def issued(database: Database, server: PostgresServer, number: int) -> list[Credential]:
    made = [Credential(server) for _ in range(number)]
    for one in made:
        await database.run(creating(one.role, one.password, template=TEMPLATE), 5)
    return made


async def test_an_open_change_of_its_own_does_not_keep_its_login(
    database: Database, server: PostgresServer
) -> None:
    """ALTER ROLE on itself holds the lock that taking its login needs."""
    bad, good = await issued(database, server, 2)
    sessions = [bad.open() for _ in range(3)]
    for session in sessions[:1]:
        session.ask(f"BEGIN; ALTER ROLE {bad.name} PASSWORD 'another'")
    assert await database.run(removing(bad.role, good.role), 4) == {}
    for session in sessions:
        with pytest.raises(psycopg2.Error):
            session.ask("SELECT 1")
    assert not server.roles().keys() & {bad.name, good.name}


@pytest.mark.parametrize("change", ["ALTER ROLE {} PASSWORD 'another'", "CREATE TABLE {}_t (x int)"])
async def test_a_prepared_transaction_does_not_keep_it(
    database: Database, server: PostgresServer, change: str
) -> None:
    bad, good = await issued(database, server, 2)
    bad.ask(f"CREATE TABLE of_{bad.name} (x int)")
    with bad.open() as session:
        session.ask(f"BEGIN; {change.format(bad.name)}; LOCK TABLE of_{bad.name}")
        session.ask(f"PREPARE TRANSACTION '{bad.name}'")
    assert await database.run(removing(bad.role, good.role), 4) == {}
    assert server.ask("SELECT count(*) FROM pg_prepared_xacts") == [(0,)]
    server.ask(f"DROP TABLE of_{bad.name}")


async def test_what_others_granted_to_it_does_not_keep_it(database: Database, server: PostgresServer) -> None:
    """DROP OWNED takes back only what the owner granted."""
    one, two, three = await issued(database, server, 3)
    table = f"t_{secrets.token_hex(4)}"
    one.ask(f"CREATE TABLE {table} (x int, y int)")
    one.ask(f"CREATE SCHEMA s_{table}; GRANT ALL ON SCHEMA s_{table} TO {two.name} WITH GRANT OPTION")
    one.ask(f"GRANT SELECT ON {table} TO {two.name} WITH GRANT OPTION")
    two.ask(f"GRANT SELECT ON {table} TO {three.name}; GRANT SELECT (x) ON {table} TO {three.name}")
    two.ask(f"GRANT USAGE ON SCHEMA s_{table} TO {three.name}")
    assert await database.run(removing(three.role), 4) == {}
    (four,) = await issued(database, server, 1)
    two.ask(f"GRANT SELECT ON {table} TO {four.name}")
    assert await database.run(removing(one.role), 4) == {}  # now `two` is a member of the table's owner
    assert await database.run(removing(four.role), 4) == {}
    assert await database.run(removing(two.role), 4) == {}
    server.ask(f"DROP TABLE {table}; DROP SCHEMA s_{table}")


async def test_what_its_template_may_not_own_is_dropped_and_data_stay(
    database: Database, server: PostgresServer
) -> None:
    one, two = await issued(database, server, 2)
    schema = f"s_{secrets.token_hex(4)}"
    one.ask(f"CREATE SCHEMA {schema}; GRANT ALL ON SCHEMA {schema} TO {two.name}")
    two.ask(f"CREATE FUNCTION {schema}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    two.ask(f"CREATE TYPE {schema}.\"t{{}}%\" AS ENUM ('a'); CREATE TABLE {schema}.kept (x int)")
    two.ask(f"INSERT INTO {schema}.kept VALUES (7)")
    assert await database.run(removing(two.role), 4) == {}
    assert server.ask(f"SELECT x FROM {schema}.kept") == [(7,)]
    owners = f"SELECT tableowner FROM pg_tables WHERE schemaname = '{schema}'"
    assert server.ask(owners) == [(TEMPLATE,)]
    functions = server.ask(
        "SELECT r.rolname FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner"
        f" WHERE pronamespace = '{schema}'::regnamespace"
    )
    assert functions == ([(TEMPLATE,)] if database_is_superusers(database) else [])
    assert await database.run(removing(one.role), 4) == {}
    server.ask(f"DROP SCHEMA {schema} CASCADE")


async def test_more_than_one_transaction_can_lock_goes_in_pieces_and_delays_no_other(
    database: Database, server: PostgresServer
) -> None:
    many, good = await issued(database, server, 2)
    many.ask("DO $$ BEGIN FOR i IN 1..4000 LOOP EXECUTE format('CREATE TABLE many_%s (x int)', i);"
             " IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$")  # fmt: skip
    server.ask("ALTER SYSTEM SET max_locks_per_transaction = 10")
    server.kill()
    server.start()
    still = {many.name: "not yet"}
    attempts = 0
    while still and attempts < 20:
        still = await database.run(removing(many.role, good.role), 4)
        assert good.name not in server.roles()
        assert not server.logs_in(many.name, many.password)
        attempts += 1
    assert still == {}
    server.ask("ALTER SYSTEM RESET max_locks_per_transaction")
    server.kill()
    server.start()
    server.ask("DO $$ BEGIN FOR i IN 1..4000 LOOP EXECUTE format('DROP TABLE many_%s', i);"
               " IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$")  # fmt: skip


async def test_a_role_without_our_mark_loses_its_login_all_the_same(
    database: Database, server: PostgresServer
) -> None:
    (one,) = await issued(database, server, 1)
    server.ask(f"COMMENT ON ROLE {one.name} IS 'mine'")
    session = one.open()
    still = await database.run(removing(one.role), 4)
    assert "does not bear our mark" in still[one.name]
    assert not server.logs_in(one.name, one.password)
    with pytest.raises(psycopg2.Error):
        session.ask("SELECT 1")
    server.ask(f"DROP ROLE {one.name}")


async def test_a_credential_whose_template_is_gone_keeps_what_it_owns_and_has_no_login(
    database: Database, server: PostgresServer
) -> None:
    gone = f"gone_{secrets.token_hex(4)}"
    server.ask(f"CREATE ROLE {gone}; GRANT {gone} TO maker WITH ADMIN OPTION")
    known, password = role_named(), scram.new_password()
    role = Role(known.username, known.comment, gone)
    await database.run(creating(role, password, template=gone), 5)
    server.ask(f"CREATE TABLE of_{role.username} (x int)", user=role.username, password=password)
    server.ask(f"DROP ROLE {gone}")
    still = await database.run(removing(role), 4)
    assert "its template" in still[role.username]
    assert not server.logs_in(role.username, password)
    server.ask(f"DROP TABLE of_{role.username}")
    assert await database.run(removing(role), 4) == {}
