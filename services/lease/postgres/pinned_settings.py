"""Settings that no database, role or pooler may change in our sessions, and how that is ensured.

A database's owner, whoever may alter the connection's user, and a pooler can each set parameters for our
sessions. With another `search_path` a function that a credential made is called in place of PostgreSQL's own,
as the connection's user (CVE-2018-1058); with another `role` the session acts as somebody else; with
read-only transactions, or a timeout of a millisecond, credentials could not be ended.

Rules:
* These settings are sent when the session begins, where they override what is set for roles and databases,
  and are read back. `pg_temp` stands last: unnamed it would be searched first.
* A pooler may refuse that or leave it out, and may give each transaction another session of the server. Then
  each statement is sent in one message with the one that makes these settings for its transaction: a pooler
  does not split a message.
* The session's user is checked as well, and that the server takes writes: a role that a standby does not have
  yet would be taken for gone.
* Statements name functions with their schema, pass exactly the declared types, and compare values of one
  type, so that they would mean the same under any search_path.
"""

from __future__ import annotations

from typing import NamedTuple

from services.lease.postgres.errors import LoginRefused, Unreachable

SETTINGS = {
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
    "row_security": "off",
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
}
_AT_START_ONLY = {"local_preload_libraries": ""}
_LATER = 140000, {"idle_session_timeout": "0"}
_LATEST = 170000, {"transaction_timeout": "0"}


def options() -> str:
    """The `options` that libpq sends when it connects."""
    said = SETTINGS | _AT_START_ONLY
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in said.items())


def newer_options(version: int) -> str:
    """Further options for a server of this version: an older one would not know them, and refuse."""
    return " ".join(f"-c {name}={value}" for name, value in _newer(version).items())


def _newer(version: int) -> dict[str, str]:
    return {
        name: value for since, more in (_LATER, _LATEST) if version >= since for name, value in more.items()
    }


def wanted(version: int, *, superuser: bool) -> dict[str, str]:
    """The settings that must hold in a session with a server of this version (such as 150004)."""
    said = SETTINGS | _newer(version)
    if superuser:
        # An event trigger's function, whoever owns it, would run as the connection's user, or raise.
        said |= {"event_triggers": "off"} if version >= 170000 else {"session_replication_role": "replica"}
    return said


def setting(settings: dict[str, str], *, local: bool = False) -> str:
    """The statement that sets them; names and values are ours and need no quoting.

    `local`: for its transaction, so that nothing is left in a session that a pooler gives to others.
    """
    until = "true" if local else "false"
    calls = (f"pg_catalog.set_config('{name}', '{value}', {until})" for name, value in settings.items())
    return f"SELECT {', '.join(calls)}"


class Seen(NamedTuple):
    """What a session reports: its users, whether it is on a standby, its settings."""

    login: str
    user: str
    standby: bool
    settings: dict[str, str]

    def require(self, login: str) -> None:
        """Raise LoginRefused unless the session is that user's and the server takes writes."""
        if (self.login, self.user) != (login, login):
            raise LoginRefused("the session is another user's than the connection's")
        if self.standby:
            raise LoginRefused("this server is a standby: it takes no writes")


def looking(settings: dict[str, str]) -> str:
    """The statement whose row is what `seen` takes."""
    values = (f"pg_catalog.current_setting('{name}', true)" for name in settings)
    return (
        "SELECT SESSION_USER::pg_catalog.text, CURRENT_USER::pg_catalog.text, pg_catalog.pg_is_in_recovery(),"
        f" ARRAY[{', '.join(values)}]"
    )


def seen(settings: dict[str, str], row: tuple[str, str, bool, list[str]]) -> Seen:
    """A row of `looking`."""
    login, user, standby, values = row
    return Seen(login, user, standby, dict(zip(settings, values, strict=True)))


def require(found: Seen, settings: dict[str, str]) -> None:
    """Raise Unreachable unless the settings hold."""
    if found.settings != settings:
        names = sorted(name for name, value in settings.items() if found.settings[name] != value)
        raise Unreachable(f"a session with PostgreSQL does not keep {' '.join(names)}")
