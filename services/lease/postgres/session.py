"""One session with a server: statements under a deadline that holds even when the server is frozen.

psycopg2 waits in C, where nothing interrupts it; statement_timeout is kept by the server, and a frozen server
does not keep it. So waiting is done here: psycopg2 calls `_wait` whenever it would block, while it connects
too, and this thread's deadline ends it. A session whose deadline passed is closed; whether its last statement
had an effect is not known.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from services.lease.postgres import pins
from services.lease.postgres.errors import (
    DeadlinePassed,
    Lost,
    PostgresFailure,
    Rejected,
    Unreachable,
    is_pooler_refusal,
    of_connecting,
    of_statement,
)

LONGEST = 30.0  # seconds
_mine = threading.local()
Statement = str | sql.Composable


@contextlib.contextmanager
def deadline(at: float) -> Iterator[None]:
    """End everything that this thread asks of a server at `at` (monotonic seconds)."""
    _mine.deadline = at
    try:
        yield
    finally:
        del _mine.deadline


def time_left() -> float:
    """Seconds until this thread's deadline, or `LONGEST` when it has none."""
    return float(getattr(_mine, "deadline", time.monotonic() + LONGEST)) - time.monotonic()


def _wait(connection: Any) -> None:
    # psycopg2 has one such callback for a whole process: it also serves connections without a deadline.
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        left = time_left()
        if left <= 0:
            raise DeadlinePassed
        # Not select(), which knows no file above 1023: a process with many connections has those.
        waiting = select.poll()
        reads = state == psycopg2.extensions.POLL_READ
        waiting.register(connection.fileno(), select.POLLIN if reads else select.POLLOUT)
        waiting.poll(max(1, round(left * 1000)))


psycopg2.extensions.set_wait_callback(_wait)


class Session:
    """A connected session; every statement commits by itself unless it says BEGIN."""

    def __init__(self, connection: Any, made_at: float) -> None:
        self._connection = connection
        self.made_at = self.used_at = made_at
        self._before: sql.SQL | None = None

    @property
    def server_version(self) -> int:
        """The server's version as a number, such as 150004."""
        return int(self._connection.server_version)

    @property
    def is_superuser(self) -> bool:
        """Whether the user is a superuser, as the server last reported it."""
        return bool(self._connection.info.parameter_status("is_superuser") == "on")

    @property
    def database(self) -> str:
        """The database it is in."""
        return str(self._connection.info.dbname)

    def pin(self, login: str) -> None:
        """Make the settings of `pins` hold from now on. Raises PostgresFailure when they do not."""
        settings = pins.wanted(self.server_version, superuser=self.is_superuser)
        given = {name: value for name, value in settings.items() if name not in pins.SETTINGS}
        look = pins.looking(settings)
        found = pins.seen(settings, self._row(f"{pins.setting(given)}; {look}" if given else look))
        found.require(login)
        if found.settings != settings:
            self._before = sql.SQL(pins.setting(settings, local=True) + "; ")
            found = pins.seen(settings, self._row(look))
            found.require(login)
            pins.require(found, settings)

    def ask(
        self, statement: Statement, values: Sequence[Any] | None = None, *, bare: bool = False
    ) -> list[tuple[Any, ...]]:
        """Rows of the (last) statement; none if it has none. Raises Rejected, Lost.

        Values and identifiers are quoted by the driver: `values` for `%s`, `sql.Identifier` for names.
        `bare`: it cannot be sent together with another one, and calls no function.
        """
        if self._before is not None and not bare:
            statement = self._before + (sql.SQL(statement) if isinstance(statement, str) else statement)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement, values)
                return list(cursor.fetchall()) if cursor.description is not None else []
        except DeadlinePassed:
            self.close()
            raise Lost("PostgreSQL did not answer in time") from None
        except psycopg2.Error as error:
            raise of_statement(error) from None
        except UnicodeError:  # a name from a database without an encoding
            raise Rejected("PostgreSQL answered with a name that is no UTF-8") from None

    @contextlib.contextmanager
    def transaction(self, *, commit: bool = True) -> Iterator[None]:
        """All or nothing: ROLLBACK when a statement fails. Not `commit`: they say BEGIN and COMMIT."""
        if commit:
            self.ask("BEGIN")
        try:
            yield
        except BaseException:
            if self.is_open:
                with contextlib.suppress(Exception):
                    self.ask("ROLLBACK", bare=True)
            raise
        if commit:
            self.ask("COMMIT")

    def _row(self, statement: Statement) -> Any:
        (row,) = self.ask(statement)
        return row

    @property
    def is_open(self) -> bool:
        """Whether it can be used again."""
        return not self._connection.closed

    def close(self) -> None:
        """End it; never fails."""
        with contextlib.suppress(psycopg2.Error):
            self._connection.close()


def connect(parameters: Mapping[str, str], user: str, password: str, ca: str = "") -> Session:
    """A session, pinned, within this thread's deadline. Raises Unreachable, LoginRefused."""
    with _authority(ca, parameters["sslmode"]) as trusted:
        everything: dict[str, Any] = {**parameters, **trusted, "user": user, "password": password}
        session = _open(everything)
        try:
            return _pinned(session, user)
        except Lost:
            pass  # nothing was done yet; a timeout set for the role may have ended the session
        newer = pins.newer_options(session.server_version)
        try:
            return _pinned(_open({**everything, "options": f"{parameters['options']} {newer}"}), user)
        except Lost as error:
            raise Unreachable(str(error), error.sqlstate) from None


def _pinned(session: Session, user: str) -> Session:
    try:
        session.pin(user)
    except Rejected as error:
        session.close()
        raise Unreachable(str(error), error.sqlstate) from None
    except PostgresFailure:
        session.close()
        raise
    return session


def _open(everything: dict[str, Any]) -> Session:
    try:
        connection = _connect(everything)
    except DeadlinePassed:
        raise Unreachable("PostgreSQL does not answer in time") from None
    except psycopg2.Error as error:
        raise of_connecting(error) from None
    connection.autocommit = True
    return Session(connection, time.monotonic())


def _connect(everything: dict[str, Any]) -> Any:
    try:
        return psycopg2.connect(**everything)
    except psycopg2.Error as error:
        if not is_pooler_refusal(error):
            raise
    # A pooler that takes no options: they are set and checked as soon as there is a session.
    return psycopg2.connect(**{name: value for name, value in everything.items() if name != "options"})


@contextlib.contextmanager
def _authority(ca: str, sslmode: str) -> Iterator[dict[str, str]]:
    """The PEM as a file in memory that libpq can read; without a PEM, the system's authorities."""
    if not ca:
        yield {"sslrootcert": "system"} if sslmode == "verify-full" else {}
        return
    number = os.memfd_create("ca")
    try:
        os.write(number, ca.encode())
        yield {"sslrootcert": f"/proc/self/fd/{number}"}
    finally:
        os.close(number)
