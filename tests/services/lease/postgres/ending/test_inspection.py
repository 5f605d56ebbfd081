"""What earlier versions handed to the connection's user is found, whoever that user is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from services.lease.postgres.connection_pool import Database
from services.lease.postgres.ending import inspection
from services.lease.postgres.ending.inspection import Found, Owned
from strongbox.errors import PermissionDenied
from strongbox.store.etcd import txn
from tests.services.lease.postgres.test_jobs import MAKER, database_of
from tests.services.lease.postgres.test_resisting import TEMPLATE, Credential, issued
from tests.services.lease.workshop import Workshop
from tests.support.access import FakeCluster
from tests.support.postgres import PostgresServer

MADE = """
    CREATE SCHEMA made;
    CREATE FUNCTION made.f(q text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
        AS $$ BEGIN EXECUTE q; END $$;
    CREATE FUNCTION made.harmless() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TABLE made.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, x text);
    CREATE TABLE made.ruled (x text);
    CREATE RULE r AS ON INSERT TO made.ruled DO ALSO INSERT INTO made.t (x) VALUES (new.x);
    CREATE VIEW made.v AS SELECT * FROM made.t;
    CREATE MATERIALIZED VIEW made.m AS SELECT 1 AS x;
    CREATE TYPE made.c AS (x text);
    CREATE DOMAIN made."a.d" AS text;
    CREATE FUNCTION made.eq(int, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR made.=== (LEFTARG = int, RIGHTARG = text, FUNCTION = made.eq);
    CREATE SEQUENCE made.s;
    CREATE STATISTICS made.st ON id, x FROM made.t;
    SELECT lo_from_bytea(0, 'x');
    CREATE SERVER made_server FOREIGN DATA WRAPPER postgres_fdw;
    CREATE FOREIGN TABLE made.ft (x text) SERVER made_server;
"""
LENDING = {
    ("function", "made.f(pg_catalog.text)"), ("table", "made.ruled"), ("view", "made.v"),
    ("materialized view", "made.m"),
}  # fmt: skip
OTHERS = {
    ("schema", "made"), ("function", "made.harmless()"), ("function", "made.eq(integer,pg_catalog.text)"),
    ("table", "made.t"), ("type", "made.c"), ("type", 'made."a.d"'),
    ("operator", "made.===(integer,pg_catalog.text)"),
    ("sequence", "made.s"), ("statistics object", "made.st"),
    ("server", "made_server"), ("foreign table", "made.ft"),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as made:
        made.ask(f"CREATE ROLE {TEMPLATE} NOLOGIN; GRANT CREATE ON DATABASE postgres TO {TEMPLATE}")
        made.ask("CREATE ROLE maker LOGIN CREATEROLE PASSWORD %s", MAKER)
        made.ask(f"GRANT {TEMPLATE} TO maker WITH ADMIN OPTION")
        for name in ("other", "closed"):
            made.ask(f"CREATE DATABASE {name}")
        made.ask(
            f"GRANT CREATE ON DATABASE other TO {TEMPLATE}; REVOKE CONNECT ON DATABASE closed FROM PUBLIC"
        )
        for name in ("postgres", "other"):
            made.ask("CREATE EXTENSION postgres_fdw; CREATE EXTENSION hstore", database=name)
            made.ask(f"GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {TEMPLATE}", database=name)
        yield made


@pytest.fixture(params=["superuser", "maker"])
async def database(request: pytest.FixtureRequest, server: PostgresServer) -> AsyncIterator[Database]:
    """Whose user is handed what a credential made, as versions before this one did."""
    user = "postgres" if request.param == "superuser" else "maker"
    made = database_of(server) if user == "postgres" else database_of(server, "maker", MAKER)
    (one,) = await issued(made, server, 1)
    if user == "maker":
        server.ask("GRANT CREATE ON DATABASE postgres, other TO maker")
    for name in ("postgres", "other"):
        _hand_over(server, one, user, name)
    yield made
    for name in ("postgres", "other"):
        server.ask("DROP SCHEMA made CASCADE; DROP SERVER made_server CASCADE", database=name)
        server.ask("SELECT lo_unlink(oid) FROM pg_largeobject_metadata", database=name)
    server.ask(f"DROP ROLE {one.name}")
    made.close()


def _hand_over(server: PostgresServer, one: Credential, user: str, database: str) -> None:
    server.ask(MADE, user=one.name, password=one.password, database=database)
    server.ask(f"REASSIGN OWNED BY {one.name} TO {user}; DROP OWNED BY {one.name}", database=database)


async def _found(database: Database) -> Found:
    return await database.run(lambda desk: inspection.owned(desk.session, desk.enter), 5)


async def test_what_was_handed_to_the_connections_user_is_found_in_each_database(
    database: Database,
) -> None:
    found = await _found(database)
    assert not found.more
    assert found.left_out == (["closed"] if database._login.user == "maker" else [])
    for name in ("postgres", "other"):
        objects = [one for one in found.objects if one.database == name]
        assert {(one.kind, one.identity) for one in objects if one.runs_as_owner} == LENDING
        others = {(one.kind, one.identity) for one in objects if not one.runs_as_owner}
        assert {one for one in others if one[0] != "large object"} == OTHERS
        assert len(others) == len(OTHERS) + 1
        assert [one.runs_as_owner for one in objects] == [True] * 4 + [False] * (len(objects) - 4)


async def test_the_statement_that_is_told_hands_it_over(database: Database, server: PostgresServer) -> None:
    for one in (await _found(database)).objects:
        server.ask(one.hand_over.replace("…", TEMPLATE), database=one.database)
    assert (await _found(database)).objects == []


async def test_no_more_is_told_than_an_answer_holds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "MOST", 3)
    few = await _found(database)
    assert (len(few.objects), few.more) == (3, True)
    assert all(one.runs_as_owner for one in few.objects)
    monkeypatch.setattr(inspection, "MOST", 1000)
    monkeypatch.setattr(inspection, "MOST_BYTES", 30)
    few = await _found(database)
    assert (1 <= len(few.objects) <= 3, few.more) == (True, True)


async def test_what_is_told_is_recorded(shop: Workshop, postgres: PostgresServer) -> None:
    postgres.ask("CREATE VIEW inspected AS SELECT 1 AS x")
    told = await shop.call("InspectPostgresConnection", name="c")
    assert told.username == "postgres"
    (view,) = (one for one in told.objects if one.identity == "public.inspected")
    assert Owned(view.database, view.type, view.identity, view.runs_as_owner).hand_over == view.hand_over
    postgres.ask("DROP VIEW inspected")
    recorded = await shop.recorded("InspectPostgresConnection")
    assert [(one.outcome, one.path) for one in recorded] == [("ok", "sys/postgres/connections/c")]


async def test_who_has_no_sudo_is_refused_before_the_server_is_asked(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = FakeCluster()  # its keys are the workshop's
    others.put_policy("reading", {"sys/postgres/connections/c": "read write delete list"})
    shop.root = others.add_token(policies=["reading"])
    puts = [txn.put(key, fact.value or b"") for key, fact in others.store.facts.items()]
    await shop.etcd.transact(txn.txn([], puts), idempotent=True)
    assert (await shop.call("ReadPostgresConnection", name="c")).username == "postgres"
    monkeypatch.setattr(inspection, "owned", lambda *_: pytest.fail("the server was asked"))
    with pytest.raises(PermissionDenied):
        await shop.call("InspectPostgresConnection", name="c")
    recorded = await shop.recorded("InspectPostgresConnection")
    assert [(one.outcome, one.path) for one in recorded] == [("refused", "sys/postgres/connections/c")]
