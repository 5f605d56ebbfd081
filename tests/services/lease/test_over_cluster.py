"""Credentials in a whole cluster of one node: tokens that end by themselves, the command, the metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner, Result

from strongbox.cli.app import build
from tests.support.clients import Patience, RestClient
from tests.support.cluster import ROOT, Cluster
from tests.support.database import Credential, Database
from tests.support.etcd import free_ports
from tests.support.expect import eventually, refused

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
MANY = Patience()
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """One node with PostgreSQL, quick to try again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRONGBOX_REVOKE_BACKOFF_S", "0.5")
        patch.setenv("STRONGBOX_REVOKE_BACKOFF_CAP_S", "1")
        patch.setenv("STRONGBOX_RECONCILE_EVERY_S", "1")
        with Cluster.start(1, postgres=True) as running:
            yield running


@pytest.fixture(scope="module")
def database(own: Cluster) -> Database:
    """Its PostgreSQL, with a database role `brief` of an hour."""
    found = Database(own)
    with own.rest(own.root_token, 0, MANY) as root:
        found.prepare(root, "brief", default_ttl="1h", max_ttl="24h")
    return found


@pytest.fixture
def root(own: Cluster) -> Iterator[RestClient]:
    with own.rest(own.root_token, 0, MANY) as client:
        yield client


def brief_token(root: RestClient, ttl: str) -> str:
    """A token of the credentials `brief`."""
    rules = [{"path": "dynamic-postgres/brief", "capabilities": ["read"]}]
    root.call("PUT", "/v1/policies/brief", {"rules": rules})
    return str(root.call("POST", "/v1/tokens", {"policies": ["brief"], "ttl": ttl})["token"])


def require_ended(root: RestClient, database: Database, credential: Credential) -> None:
    assert credential.username not in database.roles()
    assert root.call("GET", f"/v1/leases/{credential.lease}")["state"] == "REVOKED"


def require_no_login(database: Database, credential: Credential) -> None:
    assert not database.logs_in(credential)


# tokens that nobody revokes -----------------------------------------------------------------------


def test_a_token_that_expires_by_itself_takes_its_credentials_along(
    own: Cluster, root: RestClient, database: Database
) -> None:
    token, begun = brief_token(root, "5s"), time.monotonic()
    with own.rest(token, 0, MANY) as rest:
        credential = Credential.of(rest.call("GET", "/v1/dynamic-postgres/brief"))
        assert credential.ttl <= 5  # of the role's hour
        assert database.logs_in(credential)
        told = rest.call("POST", f"/v1/leases/{credential.lease}/renew", {"increment": "1h"})
        assert told["ttl"] <= 5
        eventually(10, refused, "UNAUTHENTICATED", rest.call, "GET", "/v1/tokens/self")
    eventually(2, require_no_login, database, credential)  # PostgreSQL is told whole seconds, rounded up
    eventually(15, require_ended, root, database, credential)
    assert time.monotonic() - begun > 4


def test_a_renewed_token_and_a_renewed_lease_end_with_the_token_as_it_was_renewed(
    own: Cluster, root: RestClient, database: Database
) -> None:
    token = brief_token(root, "4s")
    with own.rest(token, 0, MANY) as rest:
        unrenewed = Credential.of(rest.call("GET", "/v1/dynamic-postgres/brief"))
        credential = Credential.of(rest.call("GET", "/v1/dynamic-postgres/brief"))
        rest.call("POST", "/v1/tokens/self/renew", {"increment": "9s"})
        ends = time.monotonic() + 9
        told = rest.call("POST", f"/v1/leases/{credential.lease}/renew", {"increment": "1h"})
        assert 5 <= told["ttl"] <= 9, "as long as the token, not as it was when the credential was issued"
        eventually(12, require_ended, root, database, unrenewed)  # its lease was not renewed
        assert time.monotonic() < ends
        assert database.logs_in(credential)
        refused("INVALID_ARGUMENT", rest.call, "POST", f"/v1/leases/{unrenewed.lease}/renew", {})
    eventually(20, require_ended, root, database, credential)
    assert time.monotonic() > ends - 1
    assert not database.logs_in(credential)


# the command --------------------------------------------------------------------------------------


@pytest.fixture
def run(own: Cluster, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("STRONGBOX_ADDR", own.gateways[0])
    monkeypatch.setenv("STRONGBOX_TOKEN", own.root_token)
    monkeypatch.delenv("STRONGBOX_CACERT", raising=False)
    app = build(with_dev=False)

    def invoke(*words: str, said: str = "", status: int = 0) -> Result:
        result = CliRunner().invoke(app, list(words), input=said)
        assert result.exit_code == status, (words, result.stdout, result.stderr)
        return result

    return invoke


def as_json(run: Run, *words: str, said: str = "") -> Any:
    """What the command says to programs; of several things a list."""
    return json.loads(run(*words, "-o", "json", said=said).stdout)


def test_connections_and_roles_by_the_command(run: Run, database: Database, tmp_path: Path) -> None:
    if not database.ask("SELECT 1 FROM pg_roles WHERE rolname = 'by_command'"):
        database.ask("CREATE ROLE by_command NOLOGIN")
    login = ("--dsn", database.dsn, "--username", database.admin["username"])
    password = tmp_path / "password"
    password.write_text(database.admin["password"] + "\r\n")
    made = as_json(run, "postgres", "connection", "write", "cli", *login, "--password-file", str(password))
    assert (made["name"], made["username"]) == ("cli", database.admin["username"])
    again = run("postgres", "connection", "write", "cli", *login, said=database.admin["password"] + "\n")
    assert database.admin["password"] not in again.stdout + again.stderr
    assert "cli" in run("postgres", "connection", "list").stdout.split()
    assert database.dsn in run("postgres", "connection", "read", "cli").stdout
    wrong = run("postgres", "connection", "write", "cli2", *login, said="wrong\n", status=1)
    assert "wrong" not in wrong.stdout
    role = ("--connection", "cli", "--template-role", "by_command", "--default-ttl", "90s")
    told = as_json(run, "postgres", "role", "write", "cli", *role, "--max-leases", "7")
    assert (told["default_ttl"], told["max_leases"]) == (90, 7)
    assert "cli" in run("postgres", "role", "list").stdout.split()
    assert as_json(run, "postgres", "role", "read", "cli")["live_leases"] == 0
    database.ask("CREATE OR REPLACE VIEW by_command_view AS SELECT 1 AS x")
    owned = as_json(run, "postgres", "inspect", "cli")["objects"]
    assert {one["runs_as_owner"] for one in owned if one["identity"] == "public.by_command_view"} == {True}
    assert "ALTER VIEW public.by_command_view OWNER TO" in run("postgres", "inspect", "cli").stdout


def test_a_credential_and_its_lease_by_the_command(run: Run, database: Database) -> None:
    credential = Credential.of(as_json(run, "postgres", "issue", "brief"))
    assert database.logs_in(credential)
    table = run("postgres", "issue", "brief").stdout
    assert "password" in table
    assert as_json(run, "lease", "get", credential.lease)["state"] == "ACTIVE"
    assert "ACTIVE" in run("lease", "get", credential.lease).stdout
    assert 7100 < as_json(run, "lease", "renew", credential.lease, "--increment", "2h")["ttl"] <= 7200
    rows = run("lease", "list", "--path", "dynamic-postgres/brief", "--state", "ACTIVE").stdout.splitlines()
    assert rows[0].split()[:3] == ["id", "state", "path"]
    assert [credential.lease, "ACTIVE", "dynamic-postgres/brief"] in [row.split()[:3] for row in rows]
    assert as_json(run, "lease", "revoke", credential.lease)["state"] == "REVOKED"
    assert not database.logs_in(credential)
    assert "REVOKED" in run("lease", "revoke", credential.lease).stdout
    run("lease", "renew", credential.lease, status=1)
    ended = as_json(run, "lease", "revoke-prefix", "dynamic-postgres/brief")
    assert (ended["revoked"] >= 1, ended["pending"]) == (True, 0)
    assert not database.roles()


def test_a_connection_is_deleted_by_the_command_once_nothing_of_it_lives(
    run: Run, database: Database
) -> None:
    test_connections_and_roles_by_the_command(run, database, Path(os.environ.get("TMPDIR", "/tmp")))
    run("postgres", "issue", "cli")
    assert "LIVE_LEASES" in run("postgres", "connection", "delete", "cli", status=1).stderr
    run("postgres", "role", "delete", "cli")
    run("postgres", "connection", "delete", "cli", "--revoke")
    assert "cli" not in run("postgres", "connection", "list").stdout.split()
    assert not database.roles()


# the metrics --------------------------------------------------------------------------------------


@pytest.fixture
def scrape(own: Cluster) -> Iterator[Callable[[str], float]]:
    """The value of a series of the lease service, which serves its metrics for this test."""
    (port,) = free_ports(1)
    known = own.process("node-1", "lease")
    environment = dict(
        line.split("=", 1)
        for line in Path(f"/proc/{known.pid}/environ").read_text().split("\0")
        if "=" in line
    )
    known.kill()
    command = [sys.executable, "-m", "services.lease"]
    more = {"STRONGBOX_METRICS_LISTEN": f"127.0.0.1:{port}"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment | more, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def read(name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5, trust_env=False).text
        families = text_string_to_metric_families(text)
        return {sample.name: sample.value for family in families for sample in family.samples}[name]

    try:
        yield read
    finally:
        process.terminate()
        process.wait(10)
        own.up(node="node-1", unseal=False)


def test_live_pending_and_how_long_it_takes_are_told_to_who_scrapes(
    own: Cluster, root: RestClient, database: Database, scrape: Callable[[str], float]
) -> None:
    def issue() -> Credential:
        return Credential.of(root.call("GET", "/v1/dynamic-postgres/brief"))

    def require(name: str, least: float, most: float) -> None:
        assert least <= scrape(f"strongbox_{name}") <= most, name

    credentials = [eventually(30, issue) for _ in range(3)]
    assert scrape("strongbox_credential_issue_seconds_count") == 3
    assert 0 < scrape("strongbox_credential_issue_seconds_sum") < 15
    eventually(15, require, "leases_live", 3, 3)
    root.call("POST", f"/v1/leases/{credentials[0].lease}/revoke", {})
    assert scrape("strongbox_credential_revoke_seconds_count") == 1
    eventually(15, require, "leases_live", 2, 2)
    require("leases_pending", 0, 0)
    database.kill()
    try:
        told = root.call("POST", f"/v1/leases/{credentials[1].lease}/revoke", {})
        assert told["state"] == "REVOCATION_PENDING"
        eventually(15, require, "leases_pending", 1, 1)
        eventually(15, require, "leases_pending_oldest_seconds", 2, 60)
    finally:
        database.start()
    eventually(30, require, "leases_pending", 0, 0)
    require("leases_pending_oldest_seconds", 0, 0)
    eventually(15, require, "leases_live", 1, 1)
    assert scrape("strongbox_leases_reaped_total") >= 1
    root.call("POST", f"/v1/leases/{credentials[2].lease}/revoke", {})
