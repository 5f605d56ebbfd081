"""Dropping roles: no new logins, no sessions, nothing owned, no role. In this order, and idempotent.

    lock_out          ALTER ROLE … NOLOGIN VALID UNTIL 'epoch', and no session is left
    owned_objects        what it owns goes to its template, in every database that pg_shdepend names
    DROP ROLE

Rules:
* Logins and sessions end first: nothing in a database, such as what a role left there, can prevent that.
* What a role owns goes to its *template*, whose member it is and which may do no more than it could. Never to
  the connection's user: functions, views, rules and triggers can run with their owner's rights.
* Several roles are dropped together, since most own nothing. If that fails, each is tried alone and briefly,
  so that one that cannot be dropped delays no other. Those that are left get the rest of the job's time.
* A role that bears another comment than ours loses its login as well (its name is a hash of its lease's id,
  which nobody can guess), but is not dropped: somebody changed the comment for some reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from psycopg2 import sql

from services.lease.postgres import retry_conflicts
from services.lease.postgres.answer_deadline import time_left
from services.lease.postgres.ending import lock_out, owned_objects, role_standing
from services.lease.postgres.ending.owned_objects import Enter
from services.lease.postgres.ending.role_standing import Standing
from services.lease.postgres.errors import Rejected
from services.lease.postgres.login_roles import Role
from services.lease.postgres.session import Session

RESERVE = 0.8  # seconds at the end of a job in which nothing is begun: the results must be reported
_NO_TIME = "there was no time left for it"
_ISSUERS = (
    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
    " WHERE application_name = ANY(%s::pg_catalog.text[]) AND pid <> pg_catalog.pg_backend_pid()"
)


class Limits(NamedTuple):
    """Seconds: for each lock, and for each statement."""

    lock: float
    statement: float


TOGETHER, BRIEFLY, LONGEST = Limits(0.2, 0.8), Limits(0.05, 0.2), Limits(2.0, 10.0)


class _Named(Protocol):
    @property
    def username(self) -> str:
        """The role's name."""


N = TypeVar("N", bound=_Named)


def remove(session: Session, enter: Enter, wanted: list[Role]) -> dict[str, str]:
    """Drop the roles; returns, by name, why one is still there. Raises when nothing can be done."""
    found = role_standing.look(session, wanted)
    if not found:
        return {}
    still = lock_out.shut_out(session, enter, found)
    comments = {role.username: role.comment for role in wanted}
    for one in found:
        if one.comment != comments[one.username]:
            still[one.username] = f"the role {one.username} does not bear our mark: it has no login any more"
    return still | _drop_all(session, enter, [one for one in found if one.username not in still])


def stop_issuers(session: Session, issuers: list[str]) -> None:
    """End the sessions that may still be making a role under one of these application names."""
    session.ask(_ISSUERS, (issuers,))


def _drop_all(session: Session, enter: Enter, found: list[Standing]) -> dict[str, str]:
    tried: dict[str, str] = {}
    if len(found) > 1:
        try:
            retry_conflicts.soon(lambda: _drop(session, enter, found, TOGETHER))
            return {}
        except Rejected:
            tried = _each(found, lambda one: _drop(session, enter, [one], BRIEFLY))
    left = [one for one in found if len(found) == 1 or one.username in tried]
    patiently = _each(left, lambda one: _patiently(session, enter, one))
    return {name: tried.get(name, why) if why == _NO_TIME else why for name, why in patiently.items()}


def _each(wanted: Sequence[N], removing: Callable[[N], None]) -> dict[str, str]:
    """Call `removing` for each; returns, by name, why one is still there."""
    still = {}
    for role in wanted:
        if time_left() < RESERVE:  # the others' results must be reported, so nothing more is begun
            still[role.username] = _NO_TIME
            continue
        try:
            removing(role)
        except Rejected as error:
            still[role.username] = str(error)
    return still


def _patiently(session: Session, enter: Enter, one: Standing) -> None:
    """Drop a role, with time to wait for locks; what it owns goes piece by piece if the whole is refused."""
    try:
        retry_conflicts.soon(lambda: _drop(session, enter, [one], _part(0.5)))
    except Rejected as error:
        if not error.is_locked:
            owned_objects.hand_over_in_pieces(session, enter, one, time_left() - RESERVE)
        if time_left() < RESERVE:
            raise
        retry_conflicts.soon(lambda: _drop(session, enter, [one], _part(1.0)))


def _part(share: float) -> Limits:
    """Limits for a share of the job's time; shorter for locks, so that a lock is given as the reason."""
    left = max(BRIEFLY.statement, share * (time_left() - RESERVE))
    return Limits(min(LONGEST.lock, left * 0.9), min(LONGEST.statement, left))


def _drop(session: Session, enter: Enter, some: list[Standing], limits: Limits) -> None:
    limiting = sql.SQL("BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; ").format(
        *(sql.Literal(max(1, round(seconds * 1000))) for seconds in limits)
    )
    places = owned_objects.places(session, [one.oid for one in some])
    for database in sorted(places.keys() - {session.database}):
        with owned_objects.inside(session, enter, database) as there:
            there.ask(limiting + owned_objects.disowning(some, places[database]) + sql.SQL("COMMIT"))
    here = places.get(session.database)
    with session.transaction(commit=False):
        session.ask(
            limiting
            + (owned_objects.disowning(some, here) if here is not None else sql.SQL(""))
            # The sessions once more: one may have been logging in just when the login was taken.
            + lock_out.ending([one.oid for one in some])
            + sql.SQL("; DROP ROLE IF EXISTS {}; COMMIT").format(role_standing.names(some))
        )
