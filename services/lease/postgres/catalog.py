"""Which server it is, which roles it has, and the password of the connection's own user."""

from __future__ import annotations

from typing import NamedTuple

from psycopg2 import sql

from services.lease.postgres import retry_conflicts
from services.lease.postgres.errors import Rejected
from services.lease.postgres.session import Session

OLDEST = 130000
SLICE = 500
_PREFIX = "sb_"


class Seen(NamedTuple):
    """A role with our prefix; `comment` is empty when it has none."""

    username: str
    comment: str


def check(session: Session) -> str:
    """The server's version, when it is new enough and we may make roles. Raises Rejected."""
    if session.server_version < OLDEST:
        raise Rejected("PostgreSQL is older than 13")
    ((version, may),) = session.ask(
        "SELECT pg_catalog.current_setting('server_version'), rolsuper OR rolcreaterole"
        " FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER"
    )
    if not may:
        raise Rejected("the user is neither superuser nor may it create roles")
    return str(version)


def roles_after(session: Session, after: str) -> list[Seen]:
    """A slice of the roles with our prefix, in the order of their names, behind `after`."""
    rows = session.ask(
        "SELECT rolname, coalesce(pg_catalog.shobj_description(oid, 'pg_authid'::pg_catalog.name), '')"
        " FROM pg_catalog.pg_roles"
        " WHERE rolname > %s::pg_catalog.name AND pg_catalog.starts_with(rolname::pg_catalog.text, %s)"
        ' ORDER BY rolname COLLATE pg_catalog."C" LIMIT %s',
        (after or _PREFIX, _PREFIX, SLICE),
    )
    return [Seen(str(name), str(comment)) for name, comment in rows]


def missing(session: Session, usernames: list[str]) -> set[str]:
    """The names of those roles that do not exist."""
    rows = session.ask(
        "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(%s::pg_catalog.name[])", (usernames,)
    )
    return set(usernames) - {str(name) for (name,) in rows}


def change_password(session: Session, user: str, verifier: str) -> None:
    """Give the user that logged in another password, by its verifier.

    The user is named, since a session does not always act as the user that logged in.
    """
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(user), sql.Literal(verifier))

    def change() -> None:
        with session.transaction():
            if session.is_superuser:
                session.ask("SET LOCAL log_statement = 'none'; SET LOCAL log_min_error_statement = 'panic'")
            session.ask(statement)

    retry_conflicts.soon(change)


def require_template(session: Session, name: str) -> None:
    """Raise Rejected unless credentials can be made members of the role by the session's user."""
    rows = session.ask(
        "SELECT r.rolname, u.rolsuper OR pg_catalog.pg_has_role("
        "u.oid, r.oid, 'MEMBER WITH ADMIN OPTION'::pg_catalog.text)"
        " FROM pg_catalog.pg_roles u LEFT JOIN pg_catalog.pg_roles r ON r.rolname = %s::pg_catalog.name"
        " WHERE u.rolname = CURRENT_USER",
        (name,),
    )
    ((found, may),) = rows
    if found is None:
        raise Rejected("template_role does not exist in the database")
    if not may:
        raise Rejected("the connection's user may not give template_role away (GRANT … WITH ADMIN OPTION)")
