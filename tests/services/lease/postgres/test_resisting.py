"""A credential that does what it can against its own end, or another's, by both kinds of connection."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import psycopg2
import pytest

from services.lease.postgres import scram
from services.lease.postgres.connection_pool import Database
from services.lease.postgres.login_roles import Role
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


@pytest.mark.parametrize("owner", ["template", "parent"])
async def test_a_transaction_prepared_in_another_name_does_not_keep_its_login(
    database: Database, server: PostgresServer, owner: str
) -> None:
    """It belongs to the role that was in force at its end. Honest work in that name stays."""
    bad, good = await issued(database, server, 2)
    name = TEMPLATE if owner == "template" else f"parent_{secrets.token_hex(4)}"
    if owner == "parent":
        server.ask(f"CREATE ROLE {name}; GRANT {name} TO {TEMPLATE}")
    table = f"t_{bad.name}"
    with bad.open() as session:
        session.ask(f"CREATE TABLE {table} (x int); GRANT ALL ON {table} TO {name}")
        session.ask(f"BEGIN; SET LOCAL ROLE {name}; INSERT INTO {table} VALUES (7)")
        session.ask(f"PREPARE TRANSACTION 'honest {bad.name}'")
        session.ask(f"BEGIN; ALTER ROLE {bad.name} PASSWORD 'another'; SET LOCAL ROLE {name}")
        session.ask(f"PREPARE TRANSACTION '{bad.name}'")
    still = await database.run(removing(bad.role, good.role), 4)  # the table is locked by honest work
    assert "locked" in still[bad.name]
    assert not server.logs_in(bad.name, bad.password)
    assert good.name not in server.roles()
    assert server.ask("SELECT gid FROM pg_prepared_xacts") == [(f"honest {bad.name}",)]
    server.ask(f"COMMIT PREPARED 'honest {bad.name}'")
    assert await database.run(removing(bad.role), 4) == {}
    assert server.ask(f"SELECT x FROM {table}") == [(7,)]
    server.ask(f"DROP TABLE {table}")
    if owner == "parent":
        server.ask(f"DROP ROLE {name}")


@pytest.mark.parametrize("how", ["open", "prepared"])
async def test_a_change_by_another_credential_that_may_be_it_does_not_keep_its_login(
    database: Database, server: PostgresServer, how: str
) -> None:
    """Until PostgreSQL 15 a role can make another one its member."""
    bad, other, good = await issued(database, server, 3)
    server.ask(f"GRANT {bad.name} TO {other.name}")
    with other.open() as session, good.open() as bystander:
        bystander.ask("BEGIN; SELECT 1")
        session.ask(f"BEGIN; SET LOCAL ROLE {bad.name}; ALTER ROLE {bad.name} PASSWORD 'another'")
        session.ask("SET LOCAL ROLE none")
        if how == "prepared":
            session.ask(f"PREPARE TRANSACTION '{bad.name}'")
        assert await database.run(removing(bad.role), 4) == {}
        assert bystander.ask("SELECT 1") == [(1,)]
    assert bad.name not in server.roles()
    assert await database.run(removing(other.role, good.role), 4) == {}


@pytest.mark.parametrize("name", ["t", "{", "}", "{}", "{{}}", "{0}", "%", "%s", "%%", '"', "'", "\\"])
async def test_what_others_granted_to_it_does_not_keep_it(
    database: Database, server: PostgresServer, name: str
) -> None:
    """DROP OWNED takes back only what the owner granted."""
    one, two, three = await issued(database, server, 3)
    quoted = name.replace('"', '""')
    table, schema = (f'"{kind}{quoted}{secrets.token_hex(4)}"' for kind in "ts")
    one.ask(f"CREATE TABLE {table} (x int, y int)")
    one.ask(f"CREATE SCHEMA {schema}; GRANT ALL ON SCHEMA {schema} TO {two.name} WITH GRANT OPTION")
    one.ask(f"GRANT SELECT ON {table} TO {two.name} WITH GRANT OPTION")
    two.ask(f"GRANT SELECT ON {table} TO {three.name}; GRANT SELECT (x) ON {table} TO {three.name}")
    two.ask(f"GRANT USAGE ON SCHEMA {schema} TO {three.name}")
    assert await database.run(removing(three.role), 4) == {}
    (four,) = await issued(database, server, 1)
    two.ask(f"GRANT SELECT ON {table} TO {four.name}")
    assert await database.run(removing(one.role), 4) == {}  # now `two` is a member of the table's owner
    assert await database.run(removing(four.role), 4) == {}
    assert await database.run(removing(two.role), 4) == {}
    server.ask(f"DROP TABLE {table}; DROP SCHEMA {schema}")


@pytest.mark.parametrize("grantee", ["the connection's user", "PUBLIC", "another's role"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_it_granted_on_what_is_its_templates_does_not_keep_it(
    database: Database, server: PostgresServer, shared: str, grantee: str, when: str
) -> None:
    """Before or after it became a member of the table's owner. Our own user is not spared: it could stay."""
    user = "postgres" if database_is_superusers(database) else "maker"
    to = {"the connection's user": user, "another's role": shared}.get(grantee, grantee)
    one, two = await issued(database, server, 2)
    table = f"t_{secrets.token_hex(4)}"
    granting = f"GRANT SELECT ON {table} TO {to}; GRANT SELECT (x) ON {table} TO {to}"
    one.ask(f"CREATE TABLE {table} (x int); GRANT SELECT ON {table} TO {two.name} WITH GRANT OPTION")
    if when == "before":
        two.ask(granting)
    assert await database.run(removing(one.role), 4) == {}
    if when == "after":
        two.ask(granting)
    assert await database.run(removing(two.role), 4) == {}
    server.ask(f"DROP TABLE {table}")


async def test_who_can_no_longer_reach_what_it_granted_is_not_kept_by_it(
    database: Database, server: PostgresServer
) -> None:
    """What it granted is on its template's table now, and whose schema that is takes the way there away."""
    one, two, maker = await issued(database, server, 3)
    schema = f"s_{secrets.token_hex(4)}"
    one.ask(f"CREATE SCHEMA {schema}; GRANT ALL ON SCHEMA {schema} TO {maker.name}, {TEMPLATE}")
    one.ask(f"GRANT USAGE ON SCHEMA {schema} TO {two.name}")
    maker.ask(f"CREATE TABLE {schema}.t (x int)")
    maker.ask(f"GRANT SELECT ON {schema}.t TO {two.name} WITH GRANT OPTION")
    two.ask(f"GRANT SELECT ON {schema}.t TO PUBLIC")
    assert await database.run(removing(maker.role), 4) == {}
    one.ask(f"REVOKE ALL ON SCHEMA {schema} FROM {two.name}, {TEMPLATE}")
    assert await database.run(removing(two.role), 4) == {}
    (privileges,) = server.ask("SELECT nspacl::text FROM pg_namespace WHERE nspname = %s", schema)
    assert two.name not in str(privileges)
    assert await database.run(removing(one.role), 4) == {}
    server.ask(f"DROP SCHEMA {schema} CASCADE")


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


@pytest.fixture
def shared(server: PostgresServer) -> Iterator[str]:
    """A schema in which credentials could create until a moment ago, and another application's own one."""
    name = f"shared_{secrets.token_hex(4)}"
    server.ask(f"CREATE ROLE {name} LOGIN PASSWORD %s; CREATE SCHEMA {name}", name)
    server.ask(f"CREATE SCHEMA app_{name} AUTHORIZATION {name}; GRANT ALL ON SCHEMA {name} TO PUBLIC")
    yield name
    server.ask(f"DROP SCHEMA {name}, app_{name} CASCADE; DROP ROLE {name}")


# What another application made of a credential's objects in schema {0}, in its own schema.
USES = {
    "collation of a column": "CREATE TABLE app_{0}.t (id int, name text COLLATE {0}.german)",
    "function of a partition key": (
        "CREATE TABLE app_{0}.t (id int, name text) PARTITION BY LIST ({0}.bucket(id));"
        " CREATE TABLE app_{0}.t0 PARTITION OF app_{0}.t FOR VALUES IN (0)"
    ),
    "function of a default": "CREATE TABLE app_{0}.t (id int DEFAULT {0}.bucket(3), name text)",
    "function of a view": (
        "CREATE TABLE app_{0}.u (id int, name text);"
        " CREATE VIEW app_{0}.t AS SELECT id, name FROM app_{0}.u WHERE {0}.bucket(id) >= 0"
    ),
}


@pytest.mark.parametrize("use", USES)
async def test_nothing_of_others_goes_with_what_a_credential_made(
    database: Database, server: PostgresServer, shared: str, use: str
) -> None:
    bad, good = await issued(database, server, 2)
    bad.ask(f"CREATE COLLATION {shared}.german (provider = libc, locale = 'C')")
    bad.ask(f"CREATE FUNCTION {shared}.bucket(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2'")
    server.ask(USES[use].format(shared), user=shared, password=shared)
    server.ask(f"INSERT INTO app_{shared}.t VALUES (2, 'Ada')", user=shared, password=shared)
    server.ask(f"REVOKE CREATE ON SCHEMA {shared} FROM PUBLIC")
    still = await database.run(removing(bad.role, good.role), 4)
    assert server.ask(f"SELECT id, name FROM app_{shared}.t") == [(2, "Ada")]
    assert not server.logs_in(bad.name, bad.password)
    assert good.name not in server.roles()
    if database_is_superusers(database):  # who may give anything to anybody
        assert still == {}
    else:
        assert "something else depends on" in still[bad.name]
        assert await database.run(removing(bad.role), 4) == still  # as often as it is tried
        server.ask(f"DROP SCHEMA app_{shared} CASCADE; CREATE SCHEMA app_{shared}")
        assert await database.run(removing(bad.role), 4) == {}


async def test_what_a_credential_made_of_its_own_things_is_dropped_link_by_link(
    database: Database, server: PostgresServer, shared: str
) -> None:
    """Whatever was made first: here the oldest function calls the youngest in the end."""
    (one,) = await issued(database, server, 1)
    function = "CREATE OR REPLACE FUNCTION {0}.f{1}(int) RETURNS int LANGUAGE sql {2}"
    for number in range(5):
        one.ask(function.format(shared, number, "RETURN $1"))
    for number in range(4):
        one.ask(function.format(shared, number, f"RETURN {shared}.f{number + 1}($1)"))
    one.ask(f"CREATE AGGREGATE {shared}.a(int) (SFUNC = int4pl, STYPE = int, FINALFUNC = {shared}.f0)")
    server.ask(f"REVOKE CREATE ON SCHEMA {shared} FROM PUBLIC")
    assert await database.run(removing(one.role), 4) == {}
    left = server.ask("SELECT count(*) FROM pg_proc WHERE pronamespace = %s::regnamespace", shared)
    assert left == [(6 if database_is_superusers(database) else 0,)]


async def test_nothing_is_dropped_because_something_is_locked_or_we_may_not_give(
    server: PostgresServer,
) -> None:
    database = database_of(server, "maker", MAKER)
    (one,) = await issued(database, server, 1)
    function = f"f_{one.name}"
    one.ask(f"CREATE FUNCTION {function}() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    server.ask(f"REVOKE {TEMPLATE} FROM maker CASCADE; GRANT {TEMPLATE} TO {one.name} WITH SET FALSE")
    still = await database.run(removing(one.role), 4)
    assert "has not the right" in still[one.name]
    server.ask(f"GRANT {TEMPLATE} TO maker WITH ADMIN OPTION")
    with server.open() as session:
        session.ask(f"BEGIN; ALTER FUNCTION {function}() COST 7")
        still = await database.run(removing(one.role), 4)
        assert one.name in still
        session.ask("ROLLBACK")
    assert server.ask(f"SELECT {function}()") == [(1,)]
    assert await database.run(removing(one.role), 4) == {}
    assert server.ask(f"SELECT {function}()") == [(1,)]
    server.ask(f"DROP FUNCTION {function}()")
    database.close()


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
