"""Rolling back transactions, prepared or open, that keep a role's login from being taken.

A prepared transaction names the role that was in force at its end (`SET LOCAL ROLE`), not the one that logged
in. So besides a role's own ones, those of every role that it can become, and of our other credentials, are
searched for the locks that matter, and so are the sessions of other credentials.
"""

from __future__ import annotations

import contextlib

from psycopg2 import sql

from services.lease.postgres.ending.owned_objects import Enter, inside
from services.lease.postgres.ending.role_standing import Standing
from services.lease.postgres.errors import Rejected
from services.lease.postgres.login_roles import MARK, joining
from services.lease.postgres.session import Session

# A lock `l` on the catalogue of roles, of a transaction that may have changed a row (locks on rows are not
# visible), or a lock on one of the roles.
_MATTERS = (
    "(l.locktype = 'relation'::pg_catalog.text AND l.mode <> 'AccessShareLock'::pg_catalog.text"
    "  AND l.relation = 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid"
    " OR l.locktype = 'object'::pg_catalog.text"
    "  AND l.classid = 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid"
    "  AND l.objid = ANY({oids}::pg_catalog.oid[]))"
)
_IS_CREDENTIAL = (
    "EXISTS (SELECT FROM pg_catalog.unnest({marks}::pg_catalog.text[]) m (mark) WHERE pg_catalog.starts_with("
    "pg_catalog.shobj_description(o.oid, 'pg_authid'::pg_catalog.name), m.mark))"
)
_PREPARED = (
    "SELECT p.gid, p.database, p.owner FROM pg_catalog.pg_prepared_xacts p"
    " JOIN pg_catalog.pg_roles o ON o.rolname = p.owner WHERE o.oid = ANY({oids}::pg_catalog.oid[])"
    " OR ({is_credential} OR EXISTS (SELECT FROM pg_catalog.unnest({oids}::pg_catalog.oid[]) s (oid)"
    "   WHERE pg_catalog.pg_has_role(s.oid, o.oid, 'MEMBER'::pg_catalog.text)))"
    # Its locks are found by the one on its own transaction id.
    "  AND EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_locks x USING (virtualtransaction)"
    "   WHERE l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'::pg_catalog.text"
    "   AND x.transactionid = p.transaction AND {matters})"
)
_OPEN = (
    "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a"
    " JOIN pg_catalog.pg_roles o ON o.oid = a.usesysid WHERE a.pid <> pg_catalog.pg_backend_pid()"
    " AND {is_credential} AND pg_catalog.pg_has_role(o.oid, 'USAGE'::pg_catalog.text)"
    " AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = a.pid AND {matters})"
)


def roll_back_prepared(session: Session, enter: Enter, some: list[Standing]) -> None:
    """Roll back what they prepared, and what others prepared that is in the way, as far as possible."""
    for gid, database, owner in session.ask(_about(_PREPARED, some)):
        # One that is gone, or cannot be rolled back, delays no other. If it is still there, its locks show
        # it.
        with contextlib.suppress(Rejected), inside(session, enter, str(database)) as there:
            _roll_back(there, str(owner), str(gid))


def end_others(session: Session, some: list[Standing]) -> None:
    """End the sessions of other credentials whose transactions are in the way."""
    session.ask(_about(_OPEN, some))


def _about(statement: str, some: list[Standing]) -> sql.Composed:
    oids = sql.Literal([one.oid for one in some])
    marks = {one.comment[: one.comment.rindex(":") + 1] for one in some if one.comment.startswith(MARK)}
    return sql.SQL(statement).format(
        oids=oids,
        matters=sql.SQL(_MATTERS).format(oids=oids),
        is_credential=sql.SQL(_IS_CREDENTIAL).format(marks=sql.Literal(sorted(marks))),
    )


def _roll_back(session: Session, owner: str, gid: str) -> None:
    try:
        if not session.is_superuser:  # then only as its owner
            _become(session, owner)
        session.ask(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)), bare=True)
    finally:
        if session.is_open:
            session.ask("SET ROLE none", bare=True)


def _become(session: Session, name: str) -> None:
    becoming = sql.SQL("SET ROLE {}").format(sql.Identifier(name))
    try:
        session.ask(becoming, bare=True)
    except Rejected:
        session.ask(joining(session, [name]))
        session.ask(becoming, bare=True)
