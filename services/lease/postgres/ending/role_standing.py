"""What a role is before it is dropped: a member of which roles, and whether we are its member."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg2 import sql

from services.lease.postgres.login_roles import Role
from services.lease.postgres.session import Session

_LOOK = (
    "SELECT r.oid::pg_catalog.int8, r.rolname,"
    " pg_catalog.shobj_description(r.oid, 'pg_authid'::pg_catalog.name),"
    " array(SELECT t.rolname FROM pg_catalog.pg_auth_members m"
    "  JOIN pg_catalog.pg_roles t ON t.oid = m.roleid WHERE m.member = r.oid ORDER BY t.oid),"
    " pg_catalog.pg_has_role(r.oid, 'USAGE'::pg_catalog.text)"
    " FROM pg_catalog.pg_roles r WHERE r.rolname = ANY(%s::pg_catalog.name[])"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A role that exists.

    `heir`: the role that takes over what it owns, or empty; `is_ours`: we are its member, with its rights.
    """

    oid: int
    username: str
    comment: str
    heir: str
    is_ours: bool


def look(session: Session, wanted: list[Role]) -> list[Standing]:
    """Those of the roles that exist, in the order in which they were given."""
    rows = session.ask(_LOOK, ([role.username for role in wanted],))
    templates = {role.username: role.template for role in wanted}
    found = {
        str(name): Standing(int(oid), str(name), comment or "", _heir(templates[name], others), bool(ours))
        for oid, name, comment, others, ours in rows
    }
    return [found[role.username] for role in wanted if role.username in found]


def names(some: Iterable[Standing]) -> sql.Composable:
    """The names of these roles as SQL, with commas."""
    return sql.SQL(", ").join(sql.Identifier(one.username) for one in some)


def _heir(template: str, memberships: list[str]) -> str:
    """The template; if that is not recorded (earlier versions, orphans), the only role it is a member of.

    Only of that is it known that it may do no more than the credential could.
    """
    if template:
        return template if template in memberships else ""
    return memberships[0] if len(memberships) == 1 else ""
