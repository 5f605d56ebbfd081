"""S5: dynamic PostgreSQL credentials."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import psycopg2

from tests.scenarios.world import World
from tests.support.canary import Canaries
from tests.support.clients import RestClient
from tests.support.database import Credential, Database
from tests.support.expect import eventually, refused
from tests.support.store import Etcd

_TTL_S = 6


def rights_until_the_end(world: World) -> str:
    """A template's rights and no others; at the expiry no login, no session, no role; its table is kept."""
    database = Database(world.unsealed())
    with world.rest(world.root_token) as root:
        database.prepare(root, "s5", default_ttl=f"{_TTL_S}s", max_ttl="60s")
        token = world.token([{"path": "dynamic-postgres/s5", "capabilities": ["read"]}])
        with world.rest(str(token["token"]), 1) as rest:
            refused("PERMISSION_DENIED", rest.call, "GET", "/v1/dynamic-postgres/other")
            answer = rest.call("GET", "/v1/dynamic-postgres/s5")
            credential = Credential.of(answer)
            lease = rest.call("GET", f"/v1/leases/{credential.lease}")
        assert (lease["state"], lease["path"]) == ("ACTIVE", "dynamic-postgres/s5")
        assert lease["accessor"] == token["accessor"]
        assert credential.ttl == _TTL_S
        session = _use(database, credential)
        late = _until_gone(root, database, credential, session)
        _of_a_revoked_token(world, root, database)
    return f"all sessions ended {late:.1f} s after the expiry"


def _use(database: Database, credential: Credential) -> Any:
    """What the template may, and nothing else. Returns a session that has a transaction open."""
    session = database.open(credential.username, credential.password)
    with session.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM s5")
        for forbidden in ("INSERT INTO s5 VALUES (1)", "CREATE ROLE more", "SELECT * FROM pg_authid"):
            try:
                cursor.execute(forbidden)
            except psycopg2.errors.InsufficientPrivilege:
                continue
            raise AssertionError(f"a reader may {forbidden}")
        cursor.execute("CREATE TEMP TABLE mine (x int); BEGIN; LOCK TABLE s5 IN ACCESS SHARE MODE")
    return session


def _until_gone(root: RestClient, database: Database, credential: Credential, session: Any) -> float:
    expires_at = time.monotonic() + _TTL_S
    assert database.logs_in(credential)
    eventually(_TTL_S + 15, _require_revoked, root, credential.lease)
    late = time.monotonic() - expires_at
    assert not database.logs_in(credential)
    assert credential.username not in database.roles()
    with closing(session), session.cursor() as cursor:
        try:
            cursor.execute("SELECT 1")
        except psycopg2.Error:
            return late
    raise AssertionError("an open session outlived the credential")


def _of_a_revoked_token(world: World, root: RestClient, database: Database) -> None:
    """Revoking a token takes its credentials along."""
    token = world.token([{"path": "dynamic-postgres/s5", "capabilities": ["read"]}])
    root.call("PUT", "/v1/postgres/roles/s5", {"connection": "s5", "template_role": "s5_template"})
    with world.rest(str(token["token"]), 2) as rest:
        credential = Credential.of(rest.call("GET", "/v1/dynamic-postgres/s5"))
    assert database.logs_in(credential)
    root.call("DELETE", f"/v1/tokens/{token['accessor']}")
    eventually(15, _require_revoked, root, credential.lease)
    assert not database.logs_in(credential)


def password_nowhere(world: World) -> str:
    """Neither the credentials' passwords nor those of the connection, old and new, are anywhere in clear."""
    cluster = world.unsealed()
    database = Database(cluster)
    database.ask("ALTER SYSTEM SET log_statement = 'all'")
    database.ask("ALTER SYSTEM SET log_min_duration_statement = 0")
    database.ask("SELECT pg_reload_conf()")
    database.ask("DROP ROLE IF EXISTS s5_maker")
    maker = "canary-maker-Vf7sK2pQ9d"
    database.ask("CREATE ROLE s5_maker LOGIN CREATEROLE PASSWORD %s", maker)
    secrets = {}
    with world.rest(world.root_token) as root, world.grpc(world.root_token, 1) as native:
        database.prepare(root, "s5", default_ttl="10m")
        database.ask("GRANT s5_template TO s5_maker WITH ADMIN OPTION")
        login = {"dsn": database.dsn, "username": "s5_maker", "password": maker + "2"}
        refused("INVALID_ARGUMENT", root.call, "PUT", "/v1/postgres/connections/s5-maker", login)
        login["password"] = maker
        root.call("PUT", "/v1/postgres/connections/s5-maker", login)
        body = {"connection": "s5-maker", "template_role": "s5_template", "default_ttl": "10m"}
        root.call("PUT", "/v1/postgres/roles/s5-maker", body)
        root.call("POST", "/v1/postgres/connections/s5-maker/rotate-root", {})
        for number, role in enumerate(("s5", "s5-maker")):
            credential = Credential.of(root.call("GET", f"/v1/dynamic-postgres/{role}"))
            answer = native.call("IssueCredential", role=role)
            assert database.logs_in(credential)
            database.open(answer.username, answer.password).close()
            root.call("POST", f"/v1/leases/{credential.lease}/renew", {"increment": "20m"})
            secrets |= {f"{number} REST": credential.password, f"{number} gRPC": answer.password}
            root.call("POST", f"/v1/leases/{credential.lease}/revoke", {})
            assert not database.logs_in(credential)
    with Etcd(cluster) as etcd:
        kept = b"\n".join(key + b"\n" + value for key, value in etcd.rows().items())
    assert not [name for name, secret in secrets.items() if secret.encode() in kept]
    log = b"".join(path.read_bytes() for path in (database.folder / "logs").iterdir())
    assert b"pg_stat_activity" in log, "PostgreSQL logs no statements: the search means nothing"
    # The test itself told PostgreSQL the maker's first password, in clear; ours never do.
    found = Canaries(secrets).search([cluster.folder], cluster.pids, exempt=[cluster.folder / "init.json"])
    found.require_clean(least_files=3 * 7)
    ours = Canaries({"maker": maker}).search(
        [cluster.folder / node for node in cluster.node_ids], cluster.pids
    )
    ours.require_clean(least_files=3 * 7)
    return f"{found.files} files, {found.bytes >> 20} MiB searched"


def _require_revoked(root: RestClient, lease: str) -> None:
    state = root.call("GET", f"/v1/leases/{lease}")["state"]
    assert state == "REVOKED", f"the lease is {state}"
