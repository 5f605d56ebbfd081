"""The PostgreSQL of a cluster under attack: what is done to it, and what it is asked past every service.

Its log holds every statement, so that a search for passwords in it means something. The user by whom roles
are made is no superuser: so it is used by people, and so it can do least.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import psycopg2

from strongbox.dev.layout import POSTGRES
from strongbox.dev.processes.children import Identity, wait_until_gone
from strongbox.dev.runner import runner_socket
from tests.support.clients import RestClient
from tests.support.cluster import Cluster
from tests.support.database import Database

IN, OUT, AWAY = "in", "out", "away"
DATABASE_ROLES = ("robust-brief", "robust-long")
BRIEF_S, LONG_S = 3, 600  # seconds that their credentials live
_MAKER, _HOG, _TEMPLATE = "robust_maker", "robust_hog", "robust_template"
_SCHEMA = "robust"  # where credentials may make something
_OUT = ("password authentication failed", "is not permitted to log in", "does not exist")
_LOGINS = "host all all all scram-sha-256\n"
_ONLY_OURS = "host all postgres all scram-sha-256\nhost all all all reject\n"
_READY_WITHIN: Final = 30.0  # seconds


class Postgres:
    """A server that was started with a cluster (`postgres=True`)."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._database = cluster, Database(cluster)
        self._held: list[Any] = []
        self._frozen: list[Identity] = []
        self._admit(_LOGINS)

    @property
    def log(self) -> bytes:
        """What it has written of itself."""
        return b"".join(path.read_bytes() for path in (self._database.folder / "logs").iterdir())

    @property
    def pids(self) -> list[int]:
        """The server, then its sessions and all else that it started."""
        found = subprocess.run(
            ["pgrep", "-P", str(self._main())], capture_output=True, text=True, check=False
        )
        return [self._main(), *map(int, found.stdout.split())]

    def prepare(self, root: RestClient) -> None:
        """A template, a connection by a user of its own, and the database roles."""
        for setting in ("log_statement = 'all'", "log_min_duration_statement = 0"):
            self.ask(f"ALTER SYSTEM SET {setting}")
        password = secrets.token_hex(16)
        self.ask(f"CREATE ROLE {_TEMPLATE} NOLOGIN")
        self.ask(f"CREATE SCHEMA {_SCHEMA}")
        self.ask(f"GRANT USAGE, CREATE ON SCHEMA {_SCHEMA} TO {_TEMPLATE}")
        self.ask(f"CREATE ROLE {_MAKER} LOGIN CREATEROLE PASSWORD %s", password)
        self.ask(f"GRANT {_TEMPLATE} TO {_MAKER} WITH ADMIN OPTION")
        self.ask("SELECT pg_reload_conf()")
        login = {"dsn": self._database.dsn, "username": _MAKER, "password": password}
        root.call("PUT", "/v1/postgres/connections/robust", login)
        for name, seconds in zip(DATABASE_ROLES, (BRIEF_S, LONG_S), strict=True):
            role = {"connection": "robust", "template_role": _TEMPLATE, "default_ttl": f"{seconds}s"}
            root.call("PUT", f"/v1/postgres/roles/{name}", {**role, "max_ttl": "1h"})

    def kill(self) -> None:
        """kill -9 of the server and of all its sessions, as if the machine had lost its power."""
        doomed = [Identity.of(pid) for pid in self.pids]
        for one in doomed:
            one.signal(signal.SIGKILL)
        if not wait_until_gone(doomed, 10.0):
            raise TimeoutError("PostgreSQL outlives kill -9")

    def start(self) -> None:
        """Start it again, and wait until it lets people in. Raises RuntimeError."""
        answer = runner_socket.ask(self._cluster.folder, {"start_one": [POSTGRES, POSTGRES]})
        if "error" in answer:
            raise RuntimeError(f"PostgreSQL does not start: {answer['error']}")
        self.wait()

    def wait(self) -> None:
        """Until the superuser gets in. Raises psycopg2.OperationalError."""
        deadline = time.monotonic() + _READY_WITHIN
        while True:
            try:
                self.ask("SELECT 1")
                return
            except psycopg2.OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def freeze(self) -> None:
        """Stop the server and all its sessions in their tracks."""
        self._frozen = [Identity.of(pid) for pid in self.pids]
        for one in self._frozen:
            one.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let what is frozen go on, if anything is."""
        for one in self._frozen:
            one.signal(signal.SIGCONT)
        self._frozen = []

    def refuse(self) -> None:
        """Let nobody in but the superuser, and end all sessions."""
        self._admit(_ONLY_OURS)
        time.sleep(0.2)  # it is told by a signal
        self._end_sessions()

    def admit(self) -> None:
        self._admit(_LOGINS)

    def fill(self) -> None:
        """Have somebody else hold every session that there is room for."""
        password = secrets.token_hex(16)
        self.ask(f"DROP ROLE IF EXISTS {_HOG}")
        self.ask(f"CREATE ROLE {_HOG} LOGIN PASSWORD %s", password)
        for _ in range(2):
            with suppress(psycopg2.OperationalError):
                while True:
                    self._held.append(self._database.open(_HOG, password))
            self._end_sessions()

    def drain(self) -> None:
        """Give them back."""
        for one in self._held:
            one.close()
        self._held.clear()

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a statement of the superuser. Raises psycopg2.Error."""
        return self._database.ask(statement, *values)

    def roles(self) -> dict[str, str]:
        """Comments of all roles, by name. Raises psycopg2.Error."""
        rows = self.ask("SELECT rolname, coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles")
        return {str(name): str(comment) for name, comment in rows}

    def login(self, username: str, password: str) -> str:
        """As `let_in`."""
        return let_in(lambda: self._database.open(username, password))

    def leave_behind(self, username: str, password: str) -> None:
        """Have a credential make a function that runs with its owner's rights, if it gets in."""
        with suppress(psycopg2.Error), closing(self._database.open(username, password)) as connection:
            connection.cursor().execute(
                f"CREATE FUNCTION {_SCHEMA}.left_by_{username}() RETURNS text LANGUAGE sql SECURITY DEFINER"
                " AS 'SELECT current_user::text'"
            )

    def handed_up(self) -> list[tuple[str, str]]:
        """What credentials made and somebody mightier than their template owns now, and who.

        Raises psycopg2.Error.
        """
        rows = self.ask(
            "SELECT p.proname::text, r.rolname::text FROM pg_catalog.pg_proc p"
            " JOIN pg_catalog.pg_roles r ON r.oid = p.proowner"
            " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
            " WHERE n.nspname = %s AND (r.rolsuper OR r.rolcreaterole)",
            _SCHEMA,
        )
        return [(str(name), str(owner)) for name, owner in rows]

    def make_orphan(self, name: str, comment: str) -> None:
        """A role that the connection's user made and no lease knows. Raises psycopg2.Error."""
        self.ask(
            f'SET ROLE {_MAKER}; CREATE ROLE "{name}" NOLOGIN IN ROLE {_TEMPLATE};'
            f' COMMENT ON ROLE "{name}" IS %s',
            comment,
        )

    def _end_sessions(self) -> None:
        self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", _MAKER)

    def _admit(self, lines: str) -> None:
        (self._data / "pg_hba.conf").write_text(lines)
        os.kill(self._main(), signal.SIGHUP)
        self.wait()

    @property
    def _data(self) -> Path:
        return self._database.folder / "data"

    def _main(self) -> int:
        (process,) = self._cluster.description["postgres"]["processes"]
        return int(process["pid"])


def let_in(connect: Callable[[], Any]) -> str:
    """`IN`; `OUT`: the server says that these are not let in; `AWAY`: it says nothing of them."""
    try:
        with closing(connect()):
            return IN
    except psycopg2.OperationalError as error:
        return OUT if any(words in str(error) for words in _OUT) else AWAY
