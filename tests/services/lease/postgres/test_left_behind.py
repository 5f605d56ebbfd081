"""A credential leaves something of every kind behind, and nobody gains by it: neither another, nor itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import psycopg2
import pytest

from services.lease.postgres import catalog, login_roles, pinned_settings
from services.lease.postgres.connection_pool import Database, Desk
from tests.services.lease.postgres.test_jobs import MAKER, database_of, removing
from tests.services.lease.postgres.test_resisting import TEMPLATE, issued
from tests.support.postgres import PostgresServer

# By kind: what the credential leaves, and what another one tries then (it may fail; what counts is the gain).
LEFT: dict[str, tuple[str, str]] = {
    "function": (
        "CREATE FUNCTION left_f(q text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER"
        " AS $$ BEGIN EXECUTE q; END $$",
        "SELECT left_f('ALTER ROLE {} SUPERUSER CREATEROLE')",
    ),
    "procedure": (
        "CREATE PROCEDURE left_p(q text) LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN EXECUTE q; END $$",
        "CALL left_p('ALTER ROLE {} SUPERUSER CREATEROLE')",
    ),
    "view": (
        "CREATE VIEW left_v AS SELECT * FROM hidden; GRANT SELECT ON left_v TO PUBLIC",
        "SELECT * FROM left_v",
    ),
    "verifiers": (
        "CREATE VIEW left_a AS SELECT rolpassword FROM pg_authid; GRANT SELECT ON left_a TO PUBLIC",
        "SELECT * FROM left_a",
    ),
    "materialized view": (
        "CREATE MATERIALIZED VIEW left_m AS SELECT * FROM hidden WITH NO DATA; GRANT ALL ON left_m TO PUBLIC",
        "REFRESH MATERIALIZED VIEW left_m; SELECT * FROM left_m",
    ),
    "rule": (
        "CREATE TABLE left_r (x text); GRANT ALL ON left_r TO PUBLIC;"
        " CREATE RULE r AS ON INSERT TO left_r DO ALSO INSERT INTO hidden VALUES (new.x)",
        "INSERT INTO left_r VALUES ('gained')",
    ),
    "trigger": (
        "CREATE FUNCTION left_tf() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " EXECUTE new.x; RETURN new; END $$; CREATE TABLE left_t (x text); GRANT ALL ON left_t TO PUBLIC;"
        " CREATE TRIGGER t BEFORE INSERT ON left_t FOR EACH ROW EXECUTE FUNCTION left_tf()",
        "INSERT INTO left_t VALUES ('ALTER ROLE {} SUPERUSER CREATEROLE')",
    ),
    "operator": (
        "CREATE FUNCTION left_of(name, text) RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " EXECUTE $2; RETURN true; END $$;"
        " CREATE OPERATOR === (LEFTARG = name, RIGHTARG = text, FUNCTION = left_of)",
        "SELECT 'x'::name === 'ALTER ROLE {} SUPERUSER CREATEROLE'::text",
    ),
    "cast": (
        "CREATE TYPE left_c AS (q text); CREATE FUNCTION left_cf(left_c) RETURNS int LANGUAGE plpgsql"
        " SECURITY DEFINER AS $$ BEGIN EXECUTE $1.q; RETURN 1; END $$;"
        " CREATE CAST (left_c AS int) WITH FUNCTION left_cf(left_c) AS IMPLICIT",
        "SELECT ROW('ALTER ROLE {} SUPERUSER CREATEROLE')::left_c::int",
    ),
    "aggregate": (
        "CREATE FUNCTION left_ag(text, text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " EXECUTE $2; RETURN $1; END $$; CREATE AGGREGATE left_agg(text) (SFUNC = left_ag, STYPE = text)",
        "SELECT left_agg(q) FROM (VALUES ('ALTER ROLE {} SUPERUSER CREATEROLE')) v (q)",
    ),
    "domain": (
        "CREATE FUNCTION left_df(text) RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " EXECUTE $1; RETURN true; END $$; CREATE DOMAIN left_d AS text CHECK (left_df(value))",
        "SELECT 'ALTER ROLE {} SUPERUSER CREATEROLE'::left_d",
    ),
    "default and generated column": (
        "CREATE FUNCTION left_g(text) RETURNS text LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS $$ BEGIN"
        " EXECUTE $1; RETURN $1; END $$; CREATE TABLE left_gt (x text, y text GENERATED ALWAYS AS"
        " (left_g(x)) STORED); GRANT ALL ON left_gt TO PUBLIC",
        "INSERT INTO left_gt VALUES ('ALTER ROLE {} SUPERUSER CREATEROLE')",
    ),
    "row security": (
        "CREATE FUNCTION left_pf(text) RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " EXECUTE $1; RETURN true; END $$; CREATE TABLE left_pt (x text); ALTER TABLE left_pt ENABLE ROW"
        " LEVEL SECURITY; CREATE POLICY p ON left_pt USING (true) WITH CHECK (left_pf(x));"
        " GRANT ALL ON left_pt TO PUBLIC",
        "INSERT INTO left_pt VALUES ('ALTER ROLE {} SUPERUSER CREATEROLE')",
    ),
    "default privileges": (
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT ALL ON"
        " FUNCTIONS TO PUBLIC; CREATE TABLE left_dp (x text)",
        "SELECT * FROM hidden",
    ),
    "large object": (
        "SELECT lo_from_bytea(424242, 'x')",
        "SELECT lo_put(424242, 0, 'gained')",
    ),
    "foreign server": (
        "CREATE SERVER left_s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1');"
        " CREATE USER MAPPING FOR PUBLIC SERVER left_s OPTIONS (user 'postgres', password 'x');"
        " CREATE FOREIGN TABLE left_ft (x text) SERVER left_s; GRANT ALL ON left_ft TO PUBLIC",
        "SELECT * FROM left_ft",
    ),
    "publication": (
        "CREATE TABLE left_pub (x int); CREATE PUBLICATION left_p FOR TABLE left_pub",
        "SELECT 1",
    ),
    "schema": (
        "CREATE SCHEMA left_s; CREATE FUNCTION left_s.f(q text) RETURNS void LANGUAGE plpgsql"
        " SECURITY DEFINER AS $$ BEGIN EXECUTE q; END $$; GRANT ALL ON SCHEMA left_s TO PUBLIC;"
        " REVOKE ALL ON SCHEMA left_s FROM CURRENT_USER",
        "SELECT left_s.f('ALTER ROLE {} SUPERUSER CREATEROLE')",
    ),
    "statistics, sequence and collation": (
        "CREATE TABLE left_st (x int, y int); CREATE STATISTICS left_ss ON x, y FROM left_st;"
        " CREATE SEQUENCE left_sq; CREATE COLLATION left_co FROM \"C\"",
        "SELECT nextval('left_sq')",
    ),
    "text search and operator class": (
        "CREATE TEXT SEARCH CONFIGURATION left_tc (COPY = simple); CREATE TEXT SEARCH DICTIONARY left_td"
        " (TEMPLATE = simple); CREATE CONVERSION left_cv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
        "SELECT 1",
    ),
    "extension": ("CREATE EXTENSION hstore", "SELECT 'a=>1'::hstore"),
    "grants to itself as its template": (
        f"SET ROLE {TEMPLATE}; CREATE TABLE left_gr (x int); GRANT ALL ON left_gr TO SESSION_USER"
        " WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO SESSION_USER",
        "SELECT 1",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Under the rules of PostgreSQL 14 and older: everybody may create in `public`."""
    with PostgresServer() as made:
        made.ask(f"CREATE ROLE {TEMPLATE} NOLOGIN; GRANT CREATE ON SCHEMA public TO PUBLIC")
        made.ask(f"GRANT CREATE ON DATABASE postgres TO {TEMPLATE}")
        made.ask("CREATE TABLE hidden (x text); INSERT INTO hidden VALUES ('payroll')")
        made.ask("CREATE EXTENSION postgres_fdw")
        made.ask(f"GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {TEMPLATE}")
        made.ask("CREATE ROLE maker LOGIN CREATEROLE PASSWORD %s", MAKER)
        made.ask(f"GRANT {TEMPLATE} TO maker WITH ADMIN OPTION; GRANT SELECT, INSERT ON hidden TO maker")
        yield made


@pytest.fixture(params=["superuser", "maker"])
async def database(request: pytest.FixtureRequest, server: PostgresServer) -> AsyncIterator[Database]:
    made = database_of(server) if request.param == "superuser" else database_of(server, "maker", MAKER)
    yield made
    made.close()


@pytest.mark.parametrize("kind", LEFT)
async def test_what_is_left_behind_gives_nobody_a_right(
    database: Database, server: PostgresServer, kind: str
) -> None:
    leaves, tries = LEFT[kind]
    gone, other = await issued(database, server, 2)
    gone.ask(leaves)
    assert await database.run(removing(gone.role), 4) == {}
    assert gone.name not in server.roles()
    with other.open() as session:
        try:
            rows = session.ask(tries.format(other.name))
        except psycopg2.Error:
            rows = []
    assert "payroll" not in str(rows)
    assert "SCRAM" not in str(rows)
    assert server.ask("SELECT x FROM hidden") == [("payroll",)]
    mighty = "SELECT rolname FROM pg_roles WHERE rolname ~ '^sb_' AND (rolsuper OR rolcreaterole)"
    assert server.ask(mighty) == []
    assert _owned_by_us(server) == []
    assert await database.run(removing(other.role), 4) == {}
    server.ask(f"DROP OWNED BY {TEMPLATE} CASCADE")
    server.ask(f"GRANT CREATE ON DATABASE postgres TO {TEMPLATE}")
    server.ask(f"GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {TEMPLATE}")


def _owned_by_us(server: PostgresServer) -> list[tuple[str]]:
    """What was left (its name says so) and is the connection's user's now."""
    return list(server.ask(
        "SELECT c.relname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner"
        " WHERE c.relname ~ '^left_' AND r.rolname IN ('postgres', 'maker') UNION ALL"
        " SELECT p.proname FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner"
        " WHERE p.proname ~ '^left_' AND r.rolname IN ('postgres', 'maker')"
    ))  # fmt: skip


HIJACKS = {
    "make_interval": "make_interval(secs integer) RETURNS interval",
    "shobj_description": "shobj_description(oid, text) RETURNS text",
    "set_config": "set_config(text, text, bool, int) RETURNS text",
    "array_agg": "to_char(timestamp, text) RETURNS text",
    "timezone": "timezone(text, timestamptz) RETURNS timestamp",
    "pg_terminate_backend": "pg_terminate_backend(integer) RETURNS bool",
    "pg_has_role": "pg_has_role(oid, text) RETURNS bool",
    "current_setting": "current_setting(text) RETURNS text",
}


async def _everything(database: Database, server: PostgresServer) -> None:
    """Each statement of ours, at least once."""
    (one,) = await issued(database, server, 1)
    role = one.role
    renewing: Callable[[Desk], bool] = lambda desk: login_roles.renew(desk.session, role, 60)  # noqa: E731
    assert await database.run(renewing, 5)
    await database.run(lambda desk: catalog.check(desk.session), 5)
    await database.run(lambda desk: catalog.roles_after(desk.session, ""), 5)
    await database.run(lambda desk: catalog.missing(desk.session, [role.username]), 5)
    assert await database.run(removing(role), 4) == {}


@pytest.mark.parametrize("pinned", [True, False])
async def test_no_function_of_a_credential_is_called_by_a_session_of_ours(
    database: Database, server: PostgresServer, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the search_path were not pinned: each call names its schema and its types."""
    (bad,) = await issued(database, server, 1)
    for header in HIJACKS.values():
        bad.ask(
            f"CREATE FUNCTION public.{header} LANGUAGE plpgsql AS $$ BEGIN"
            f" IF current_user <> '{bad.name}' THEN"
            f" EXECUTE 'ALTER ROLE {bad.name} SUPERUSER CREATEROLE'; END IF;"
            " RETURN null; END $$"
        )
    if not pinned:
        monkeypatch.delitem(pinned_settings.SETTINGS, "search_path")
    fresh = Database(database._login, database._passwords)
    await _everything(fresh, server)
    fresh.close()
    monkeypatch.undo()
    mighty = "SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = %s"
    assert server.ask(mighty, bad.name) == [(False, False)]
    assert await database.run(removing(bad.role), 4) == {}
    server.ask(f"DROP OWNED BY {TEMPLATE} CASCADE; GRANT CREATE ON DATABASE postgres TO {TEMPLATE}")


async def test_what_is_set_for_a_role_or_a_database_does_not_hold_for_us(
    database: Database, server: PostgresServer
) -> None:
    user = database._login.user
    hostile = {
        "search_path": "public, pg_catalog", "role": TEMPLATE, "default_transaction_read_only": "on",
        "statement_timeout": "1", "lock_timeout": "1", "transaction_timeout": "1",
        "default_transaction_isolation": "serializable",
    }  # fmt: skip
    if user == "postgres":
        server.ask(f"GRANT {TEMPLATE} TO postgres")
    with server.open() as session:
        for name, value in hostile.items():
            session.ask(f"ALTER ROLE {user} SET {name} = '{value}'")
        session.ask("ALTER DATABASE postgres SET search_path = public")
    try:
        await _everything(database, server)
        seen = await database.run(lambda desk: desk.session.ask("SELECT current_user, session_user"), 5)
        assert seen == [(user, user)]
    finally:
        with server.open() as session:
            session.ask("SET default_transaction_read_only = off; SET role = none")
            session.ask(f"ALTER ROLE {user} RESET ALL")
            session.ask("ALTER DATABASE postgres RESET ALL")


async def test_an_event_trigger_is_neither_run_nor_in_the_way_of_a_superuser(server: PostgresServer) -> None:
    database = database_of(server)
    (bad,) = await issued(database, server, 1)
    bad.ask(
        "CREATE FUNCTION left_ev() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" EXECUTE 'ALTER ROLE {bad.name} SUPERUSER'; RAISE 'never'; END $$; CREATE TABLE left_evt (x int)"
    )
    server.ask("CREATE EVENT TRIGGER left_e ON ddl_command_start EXECUTE FUNCTION left_ev()")
    assert await database.run(removing(bad.role), 4) == {}
    with server.open() as session:
        session.ask("SET event_triggers = off; DROP EVENT TRIGGER left_e")
    database.close()
