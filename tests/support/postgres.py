"""A PostgreSQL server of a test's own: from the wheel, on a free port, by SCRAM, gone with the test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg2
import psycopg2.extensions
import pytest

from strongbox.dev.layout import POSTGRES, Layout
from strongbox.dev.processes import postgres as dev
from strongbox.dev.processes.children import Child
from tests.support.etcd import free_ports

PASSWORD = "test-password-of-the-superuser"


@contextmanager
def _usual_waiting() -> Iterator[None]:
    """Without the deadlines of services.lease.postgres, which hold for the whole process."""
    callback = psycopg2.extensions.get_wait_callback()
    psycopg2.extensions.set_wait_callback(None)
    try:
        yield
    finally:
        psycopg2.extensions.set_wait_callback(callback)


class Peer:
    """A session of somebody else's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a statement. Raises psycopg2.Error."""
        with _usual_waiting(), self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        """End it."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PostgresServer:
    """A context manager. Used as people use the local cluster's."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="strongbox-postgres-"))
        (self.port,) = free_ports(1)
        layout = Layout(
            folder=self.folder, nodes=1, base_port=0, tls=False, postgres=True,
            postgres_password=PASSWORD, kept_ports={POSTGRES: {POSTGRES: self.port}},
        )  # fmt: skip
        self._spec = dev.server(layout)
        self._child: Child | None = None

    @property
    def dsn(self) -> str:
        """Without user and password."""
        return f"postgresql://127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The server's own process (its sessions are its children)."""
        return int((self.folder / POSTGRES / "data" / "postmaster.pid").read_text().splitlines()[0])

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._child = Child(self._spec)
        end = time.monotonic() + 60
        while not self._spec.is_ready():
            assert time.monotonic() < end, "PostgreSQL does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it and its sessions at once."""
        if self._child is not None and self._child.status is None:
            os.kill(self._child.identity.pid, signal.SIGQUIT)
            self._child.wait()

    def freeze(self, *, thaw: bool = False) -> None:
        """Stop every process of it in its tracks, or let them go on."""
        pids = subprocess.run(["pgrep", "-P", str(self._main())], capture_output=True, text=True, check=False)
        for pid in (self._main(), *map(int, pids.stdout.split())):
            os.kill(pid, signal.SIGCONT if thaw else signal.SIGSTOP)

    def ask(
        self, statement: str, *values: Any, user: str = "", password: str = "", database: str = ""
    ) -> Any:
        """Rows of a statement; the superuser's when nobody is named."""
        with self.open(user, password, database) as peer:
            return peer.ask(statement, *values)

    def open(self, user: str = "", password: str = "", database: str = "") -> Peer:
        """A session that commits each statement. Raises psycopg2.OperationalError."""
        with _usual_waiting():
            connection = psycopg2.connect(
                host="127.0.0.1", port=self.port, dbname=database or "postgres", connect_timeout=5,
                user=user or "postgres", password=password or PASSWORD,
            )  # fmt: skip
        connection.autocommit = True
        return Peer(connection)

    def roles(self) -> dict[str, str]:
        """Comments of the roles of credentials, by name."""
        rows = self.ask(
            "SELECT rolname, coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles"
            " WHERE rolname ~ '^sb_'"
        )
        return {str(name): str(comment) for name, comment in rows}

    def logs_in(self, user: str, password: str) -> bool:
        """Whether the password is taken."""
        try:
            self.open(user, password).close()
        except psycopg2.OperationalError:
            return False
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _main(self) -> int:
        assert self._child is not None
        return self._child.identity.pid


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of the session; use names of your own."""
    with PostgresServer() as server:
        yield server
