"""One session with a server: statements under the thread's deadline (`answer_deadline`).

A session whose deadline passed is closed; whether its last statement had an effect is not known.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from services.lease.postgres import pinned_settings
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

Statement = str | sql.Composable


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
        """Make the settings of `pinned_settings` hold from now on. Raises PostgresFailure if not."""
        settings = pinned_settings.wanted(self.server_version, superuser=self.is_superuser)
        given = {name: value for name, value in settings.items() if name not in pinned_settings.SETTINGS}
        look = pinned_settings.looking(settings)
        found = pinned_settings.seen(
            settings, self._row(f"{pinned_settings.setting(given)}; {look}" if given else look)
        )
        found.require(login)
        if found.settings != settings:
            self._before = sql.SQL(pinned_settings.setting(settings, local=True) + "; ")
            found = pinned_settings.seen(settings, self._row(look))
            found.require(login)
            pinned_settings.require(found, settings)

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
        newer = pinned_settings.newer_options(session.server_version)
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
