"""No new logins and no sessions for roles that are to be dropped, whatever they do to prevent it.

A role may alter itself (its password, its settings), so an open or prepared transaction of its own can hold
the lock that taking its login needs. If taking it does not succeed at once, its sessions are ended and what
it has prepared is rolled back first (`blocking_transactions`), again and again, until its login is taken.

A role that resists does not delay the others: they have lost logins and sessions before it is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from psycopg2 import sql

from services.lease.postgres import retry_conflicts
from services.lease.postgres.answer_deadline import time_left
from services.lease.postgres.ending import blocking_transactions
from services.lease.postgres.ending.owned_objects import Enter
from services.lease.postgres.ending.role_standing import Standing
from services.lease.postgres.errors import Rejected
from services.lease.postgres.login_roles import joining
from services.lease.postgres.session import Session

PATIENCE = 1.0  # seconds for sessions to end; a signal ends all but those stuck in the kernel
TOGETHER_MS, ALONE_MS = 200, 50  # for the lock on a role
# The call stands in the select list: in a condition it might run before the other conditions are checked.
_SESSIONS = (
    "SELECT usesysid::pg_catalog.int8, pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
    " WHERE usesysid = ANY({}::pg_catalog.oid[])"
    # Not a subscription's worker: it comes back until its owner has changed, and takes no statements.
    " AND coalesce(backend_type, 'client backend') = ANY('{{client backend,walsender}}'::pg_catalog.text[])"
)


def shut_out(session: Session, enter: Enter, found: list[Standing]) -> dict[str, str]:
    """Take their logins and end their sessions; returns, by name, why one still has either."""
    try:
        retry_conflicts.soon(lambda: _take_logins(session, found, TOGETHER_MS))
        resisting: list[Standing] = []
    except Rejected:
        resisting = [one for one in found if _refusal(partial(_take_logins, session, [one], ALONE_MS))]
    out = [one for one in found if one not in resisting]
    still = _end_sessions(session, out)
    if out:
        # If that fails, the locks will show it.
        _refusal(lambda: blocking_transactions.roll_back_prepared(session, enter, out))
    for one in resisting:
        why = _overcome(session, enter, one)
        if why:
            still[one.username] = why
    return still


def ending(oids: list[int]) -> sql.Composed:
    """The statement that ends their sessions; its rows are those that were still there."""
    return sql.SQL(_SESSIONS).format(sql.Literal(oids))


def _take_logins(session: Session, some: list[Standing], wait_ms: int) -> None:
    statements = [
        sql.SQL("ALTER ROLE {} NOLOGIN VALID UNTIL 'epoch'").format(sql.Identifier(one.username))
        for one in some
    ]
    with session.transaction(commit=False):
        limit = sql.SQL("BEGIN; SET LOCAL lock_timeout = {}; ").format(sql.Literal(wait_ms))
        session.ask(limit + sql.SQL("; ").join(statements) + sql.SQL("; COMMIT"))
    _join(session, some)


def _join(session: Session, some: list[Standing]) -> None:
    """Become a member of those that earlier versions made without that."""
    if not session.is_superuser:
        strange = [one.username for one in some if not one.is_ours]
        if strange:
            session.ask(joining(session, strange))


def _end_sessions(session: Session, some: list[Standing]) -> dict[str, str]:
    """End sessions until none is left or `PATIENCE` is over; returns, by name, why some are left."""
    pause, end = 0.005, time.monotonic() + min(PATIENCE, time_left() / 3)
    names = {one.oid: one.username for one in some}
    while names:
        left = {int(oid) for oid, _ in session.ask(ending(list(names)))}
        if not left or time.monotonic() > end:
            return {names[oid]: "sessions of the role do not end" for oid in left}
        names = {oid: name for oid, name in names.items() if oid in left}
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
    return {}


def _overcome(session: Session, enter: Enter, one: Standing) -> str:
    """Take the login of a role that holds a lock on itself; returns why that failed, or ""."""
    why, end = "", time.monotonic() + min(PATIENCE, time_left() / 3)
    while True:
        why = _refusal(lambda: _once_more(session, enter, one))
        if not why:
            return _end_sessions(session, [one]).get(one.username, "")
        if time.monotonic() > end:
            return why
        time.sleep(0.02)


def _once_more(session: Session, enter: Enter, one: Standing) -> None:
    _join(session, [one])
    blocking_transactions.roll_back_prepared(session, enter, [one])
    blocking_transactions.end_others(session, [one])
    # Directly one after the other: a new session in between would hold the lock again.
    session.ask(ending([one.oid]))
    _take_logins(session, [one], ALONE_MS)


def _refusal(work: Callable[[], None]) -> str:
    try:
        work()
    except Rejected as error:
        return str(error)
    return ""
