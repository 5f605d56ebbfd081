"""Taking roles away: no new logins, no sessions, nothing owned, no role. In this order, and idempotent.

    ALTER ROLE … NOLOGIN VALID UNTIL 'epoch'     commits before anything else
    pg_terminate_backend                         until no session of theirs is left
    REASSIGN OWNED … TO <us>; DROP OWNED …       in every database that pg_shdepend names
    DROP ROLE

Rules:
* Who is no superuser first makes himself a member: ending sessions and taking over what a role owns needs
  that (from PostgreSQL 16 on the maker of a role has only the right to grant it).
* What a role owns goes to the connection's user: nobody gets a right by it, and nothing is lost.
* A slice of roles goes together, since most have nothing; where that fails each is tried alone, so one that
  cannot go keeps no other. What somebody has locked is waited for briefly while others wait behind it, and
  once all others are gone for as long as the job has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from psycopg2 import sql

from services.lease.postgres import retrying, roles
from services.lease.postgres.failures import PostgresFailure, Rejected
from services.lease.postgres.roles import Role
from services.lease.postgres.session import Session, time_left

PATIENCE = 1.0  # seconds for sessions to end; a signal ends what does not sit in the kernel
TOGETHER, BRIEFLY, LONGEST = 0.2, 0.05, 2.0  # seconds for a lock: of a slice, of one of it, of the last ones
RESERVE = 0.8  # seconds of a job in which nothing waits for a lock any more: what is gone has to be told
_NO_TIME = "there was no time left for it"
Enter = Callable[[str], Session]  # a session in another database
_SESSIONS = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = ANY({}::oid[])")
_STATE = sql.SQL(
    "SELECT array({}), array(SELECT DISTINCT coalesce(d.datname, current_database())::text"
    " FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid"
    " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY({}::oid[]))"
)
_ISSUERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = ANY(%s) AND pid <> pg_backend_pid()"
)


def remove(session: Session, enter: Enter, wanted: list[Role]) -> dict[str, str]:
    """Take the roles away; returns why one is still there, by its name. Raises when nothing can be done."""
    if len(wanted) == 1:
        return _each(wanted, lambda role: _patiently(session, enter, role))
    try:
        retrying.soon(lambda: _remove(session, enter, wanted, TOGETHER))
    except Rejected:
        still = _each(wanted, lambda role: _remove(session, enter, [role], BRIEFLY))
        left = [role for role in wanted if role.username in still]
        patiently = _each(left, lambda role: _patiently(session, enter, role))
        return {name: still[name] if why == _NO_TIME else why for name, why in patiently.items()}
    return {}


def _each(wanted: list[Role], removing: Callable[[Role], None]) -> dict[str, str]:
    """Do it for each; returns why one is still there, by its name."""
    still = {}
    for role in wanted:
        if time_left() < RESERVE:  # what became of the others has to be told, so nothing more is begun
            still[role.username] = _NO_TIME
            continue
        try:
            removing(role)
        except Rejected as error:
            still[role.username] = str(error)
    return still


def _patiently(session: Session, enter: Enter, role: Role) -> None:
    """Waits for locks as long as the job may; then so briefly that its deadline does not pass on the way."""

    def attempt() -> None:
        _remove(session, enter, [role], max(BRIEFLY, min(LONGEST, time_left() - RESERVE)))

    retrying.soon(attempt)


def stop_issuers(session: Session, issuers: list[str]) -> None:
    """End the sessions that may still be making a role under one of these application names."""
    session.ask(_ISSUERS, (issuers,))


def _remove(session: Session, enter: Enter, wanted: list[Role], wait: float) -> None:
    """`wait`: seconds for each lock."""
    found = roles.find(session, wanted)
    if not found:
        return
    names, oids = [role.username for role in found.values()], list(found)
    session.ask(sql.SQL("; ").join(_shut_out(session, names)))
    databases = _end_sessions(session, oids)
    _disown(session, enter, databases, names, wait)
    # Once more the sessions: one may just have been logging in when its login was taken.
    sessions = _SESSIONS.format(sql.Literal(oids))
    session.ask(sql.SQL("{}; DROP ROLE IF EXISTS {}").format(sessions, _list(names)))


def _shut_out(session: Session, names: list[str]) -> Iterable[sql.Composable]:
    for name in names:
        yield sql.SQL("ALTER ROLE {} NOLOGIN VALID UNTIL 'epoch'").format(sql.Identifier(name))
    if not session.is_superuser:
        how = " WITH INHERIT TRUE, SET TRUE" if session.server_version >= 160000 else ""
        yield sql.SQL("GRANT {} TO CURRENT_USER" + how).format(_list(names))


def _end_sessions(session: Session, oids: list[int]) -> list[str]:
    """Until none is left; returns the databases where one of the roles owns or was granted something."""
    pause, end = 0.005, time.monotonic() + min(PATIENCE, time_left() / 2)
    statement = _STATE.format(_SESSIONS.format(sql.Literal(oids)), sql.Literal(oids))
    while True:
        ((sessions, databases),) = session.ask(statement)
        if not sessions:
            return list(databases)
        if time.monotonic() > end:
            raise Rejected("sessions of the role do not end")
        time.sleep(pause)
        pause = min(2 * pause, 0.2)


def _disown(session: Session, enter: Enter, databases: list[str], names: list[str], wait: float) -> None:
    """In each of these databases, what is shared by all included."""
    statement = sql.SQL(
        "BEGIN; SET LOCAL lock_timeout = {1};"
        " REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; COMMIT"
    ).format(_list(names), sql.Literal(round(wait * 1000)))
    for database in databases:
        if database == session.database:
            with session.transaction(commit=False):
                session.ask(statement)
            continue
        try:
            other = enter(database)
        except PostgresFailure as error:
            raise Rejected(f"a database where the role owns something cannot be entered: {error}") from None
        try:
            other.ask(statement)
        finally:
            other.close()


def _list(names: list[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, names))
