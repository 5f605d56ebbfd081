"""`python -m bench.credentials`: database credentials issued and revoked per second, beside OpenBao's engine.

Both systems have one node and make their roles in the same PostgreSQL, with the same template and SCRAM at
4096 iterations; rounds alternate. Each client issues for so many seconds, then revokes what it got.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from bench.openbao import OpenBao
from tests.support.cluster import Cluster
from tests.support.postgres import PASSWORD, PostgresServer

CLIENTS = (1, 8, 32)
_TEMPLATE = "bench_template"


class Engine(Protocol):
    """A system that makes database credentials."""

    name: str

    def client(self) -> httpx.Client:
        """One connection with a token."""
        ...

    def issue(self, client: httpx.Client) -> str:
        """Make a credential; returns its lease."""
        ...

    def revoke(self, client: httpx.Client, lease: str) -> None:
        """End it; returns when its role is gone."""
        ...


class Ours:
    """StrongBox, one node."""

    name = "StrongBox"

    def __init__(self, server: PostgresServer) -> None:
        self._cluster = Cluster.start(1)
        with self._cluster.rest(self._cluster.root_token) as root:
            login = {"dsn": server.dsn, "username": "postgres", "password": PASSWORD}
            root.call("PUT", "/v1/postgres/connections/bench", login)
            role = {"connection": "bench", "template_role": _TEMPLATE, "default_ttl": "1h"}
            root.call("PUT", "/v1/postgres/roles/bench", role)

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self._cluster.root_token}"}
        return httpx.Client(base_url=self._cluster.gateways[0], headers=headers, timeout=10)

    def issue(self, client: httpx.Client) -> str:
        return str(_sound(client.get("/v1/dynamic-postgres/bench"))["lease"]["id"])

    def revoke(self, client: httpx.Client, lease: str) -> None:
        told = _sound(client.post(f"/v1/leases/{lease}/revoke", json={}))
        assert told["state"] == "REVOKED", told

    def stop(self) -> None:
        self._cluster.stop()


class Theirs:
    """OpenBao with its database engine, one node."""

    name = "OpenBao"

    def __init__(self, server: PostgresServer) -> None:
        self._bao = OpenBao(1)
        place, _, _ = server.dsn.removeprefix("postgresql://").partition("?")
        self._root = self._bao.root
        with self.client() as client:
            _sound(client.post("/v1/sys/mounts/database", json={"type": "database"}))
            connection = {
                "plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
                "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{place}?sslmode=disable",
                "username": "postgres", "password": PASSWORD, "password_authentication": "scram-sha-256",
                "max_open_connections": 8, "max_idle_connections": 8,
            }  # fmt: skip
            _sound(client.post("/v1/database/config/bench", json=connection))
            make = (
                "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}'"
                f" VALID UNTIL '{{{{expiration}}}}' IN ROLE {_TEMPLATE};"
            )
            role = {"db_name": "bench", "creation_statements": [make], "default_ttl": "1h", "max_ttl": "24h"}
            _sound(client.post("/v1/database/roles/bench", json=role))

    def client(self) -> httpx.Client:
        headers = {"x-vault-token": self._root}
        return httpx.Client(base_url=self._bao.url, headers=headers, timeout=30)

    def issue(self, client: httpx.Client) -> str:
        return str(_sound(client.get("/v1/database/creds/bench"))["lease_id"])

    def revoke(self, client: httpx.Client, lease: str) -> None:
        _sound(client.put("/v1/sys/leases/revoke", json={"lease_id": lease, "sync": True}))

    def stop(self) -> None:
        self._bao.stop()


@dataclass(slots=True)
class Round:
    """Rates per second, and median latencies in seconds."""

    issued: float
    revoked: float
    issue_seconds: float
    revoke_seconds: float


@dataclass(slots=True)
class Client:
    """What one client did."""

    leases: list[str] = field(default_factory=list)
    issued: list[float] = field(default_factory=list)
    revoked: list[float] = field(default_factory=list)


def measure(engine: Engine, clients: int, seconds: float) -> Round:
    """One round. Raises when a request failed: such figures mean nothing."""
    some = [Client() for _ in range(clients)]
    connections = [engine.client() for _ in some]
    until = time.perf_counter() + seconds

    def issue(one: Client, http: httpx.Client) -> None:
        while time.perf_counter() < until:
            started = time.perf_counter()
            one.leases.append(engine.issue(http))
            one.issued.append(time.perf_counter() - started)

    def revoke(one: Client, http: httpx.Client) -> None:
        for lease in one.leases:
            started = time.perf_counter()
            engine.revoke(http, lease)
            one.revoked.append(time.perf_counter() - started)

    issuing = _together(issue, some, connections)
    revoking = _together(revoke, some, connections)
    for http in connections:
        http.close()
    made = sum(len(one.leases) for one in some)
    return Round(
        made / issuing,
        made / revoking,
        statistics.median(each for one in some for each in one.issued),
        statistics.median(each for one in some for each in one.revoked),
    )


def _together(
    work: Callable[[Client, httpx.Client], None], some: Sequence[Client], connections: Sequence[httpx.Client]
) -> float:
    """Seconds until all have done their work."""
    failures: list[Exception] = []

    def guarded(one: Client, http: httpx.Client) -> None:
        try:
            work(one, http)
        except Exception as error:  # noqa: BLE001  raised again where it is seen
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=pair) for pair in zip(some, connections, strict=True)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - started


def run(rounds: int, seconds: float) -> str:
    """The table."""
    lines = [
        "database credentials, one node, the same PostgreSQL: per second (median latency)",
        f"{'clients':>7}  {'':8}{'StrongBox':>22}{'OpenBao':>22}{'ratio':>8}",
    ]
    with PostgresServer() as server:
        server.ask(f"CREATE ROLE {_TEMPLATE} NOLOGIN")
        ours = Ours(server)
        try:
            theirs = Theirs(server)
            try:
                for clients in CLIENTS:
                    lines += _compared([ours, theirs], clients, rounds, seconds)
            finally:
                theirs.stop()
        finally:
            ours.stop()
    return "\n".join(lines)


def _compared(engines: Sequence[Engine], clients: int, rounds: int, seconds: float) -> list[str]:
    done: dict[str, list[Round]] = {engine.name: [] for engine in engines}
    for engine in engines:
        measure(engine, clients, 0.5)  # connections are made
    for _ in range(rounds):
        for engine in engines:
            done[engine.name].append(measure(engine, clients, seconds))
    lines = []
    for what, rate, latency in (
        ("issued", lambda one: one.issued, lambda one: one.issue_seconds),
        ("revoked", lambda one: one.revoked, lambda one: one.revoke_seconds),
    ):
        pairs = [
            (
                statistics.median(map(rate, done[engine.name])),
                statistics.median(map(latency, done[engine.name])),
            )
            for engine in engines
        ]
        cells = "".join(f"{f'{each:.0f} ({took * 1000:.0f} ms)':>22}" for each, took in pairs)
        lines.append(f"{clients:>7}  {what:8}{cells}{pairs[0][0] / pairs[1][0]:>8.2f}")
    return lines


def _sound(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    return dict(answer.json()) if answer.content else {}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.credentials", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    sys.stdout.write(run(options.rounds, options.seconds) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
