"""The PostgreSQL beside a test cluster: looked into past every service, logged in to, stopped and started."""

from __future__ import annotations

import os
import signal
import urllib.parse
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from tests.support.clients import RestClient
from tests.support.cluster import Cluster
from tests.support.expect import eventually


@dataclass(frozen=True, slots=True)
class Credential:
    """What an answer to `GET /v1/dynamic-postgres/{role}` holds."""

    username: str
    password: str
    lease: str
    ttl: int

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Credential:
        lease = answer["lease"]
        return cls(answer["username"], answer["password"], lease["id"], int(lease["ttl"]))


class Database:
    """The server of a cluster that was started with `postgres=True`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._url = urllib.parse.urlsplit(str(cluster.description["postgres"]["dsn"]))

    @property
    def dsn(self) -> str:
        """Without user and password, as a connection takes it; the server has no TLS."""
        return f"postgresql://{self._url.hostname}:{self._url.port}/postgres?sslmode=disable"

    @property
    def admin(self) -> dict[str, str]:
        """User and password of its superuser."""
        return {"username": str(self._url.username), "password": str(self._url.password)}

    @property
    def folder(self) -> Path:
        """Its data and logs."""
        return self._cluster.folder / "postgres"

    def open(self, username: str = "", password: str = "", database: str = "postgres") -> Any:
        """A psycopg2 connection that commits each statement; the superuser's when nobody is named."""
        connection = psycopg2.connect(
            host=self._url.hostname, port=self._url.port, dbname=database, connect_timeout=5,
            user=username or self._url.username, password=password or self._url.password,
        )  # fmt: skip
        connection.autocommit = True
        return connection

    def ask(self, statement: str, *values: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Rows of a statement of the superuser."""
        with closing(self.open(database=database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def roles(self) -> set[str]:
        """Names of all roles of credentials."""
        return {
            str(name) for (name,) in self.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'sb\\_%%'")
        }

    def logs_in(self, credential: Credential) -> bool:
        """Whether the password is taken."""
        try:
            self.open(credential.username, credential.password).close()
        except psycopg2.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """End the server at once, its sessions with it."""
        (process,) = self._cluster.description["postgres"]["processes"]
        os.kill(int(process["pid"]), signal.SIGQUIT)
        eventually(10, self._require_gone, int(process["pid"]))

    def start(self) -> None:
        """Start it again, on its port, with its data."""
        self._cluster.up(node="postgres", unseal=False)

    def prepare(self, root: RestClient, name: str, **role: Any) -> None:
        """A connection `name`, a template role of that name that may read the table of that name, a role."""
        template = f"{name}_template"
        self.ask(f'CREATE TABLE IF NOT EXISTS "{name}" (x int)')
        if not self.ask("SELECT 1 FROM pg_roles WHERE rolname = %s", template):
            self.ask(f'CREATE ROLE "{template}" NOLOGIN; GRANT SELECT ON "{name}" TO "{template}"')
        root.call("PUT", f"/v1/postgres/connections/{name}", {"dsn": self.dsn, **self.admin})
        root.call(
            "PUT", f"/v1/postgres/roles/{name}", {"connection": name, "template_role": template, **role}
        )

    @staticmethod
    def _require_gone(pid: int) -> None:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        assert state == "Z"
