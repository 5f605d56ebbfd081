"""What a role owns and was granted, in each database: handed to its template, and taken from it.

Rules:
* As a whole where that is possible: REASSIGN OWNED, DROP OWNED.
* Otherwise piece by piece; what is done stays done when time is over. A role can own more objects than one
  transaction can lock. And without superuser the template cannot be given what it may not own (a function in
  a schema in which it may not create): that is dropped, but never with CASCADE, since others' tables can
  depend on it. What is in use, or holds data (tables, types, schemas, extensions), stays, and the lease says
  why.
* DROP OWNED takes back what an object's owner granted; the rest is in `privileges`.
* A role whose template is gone has no rights, and what it owns lends none. It stays until somebody decides.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import groupby

from psycopg2 import sql

from services.lease.postgres.ending import privileges, role_standing
from services.lease.postgres.ending.role_standing import Standing
from services.lease.postgres.errors import PostgresFailure, Rejected
from services.lease.postgres.login_roles import joining
from services.lease.postgres.object_statements import named, refusal_of
from services.lease.postgres.session import Session

PAGE = 50  # objects that change hands in one transaction
MOST = 5000  # objects of one attempt
Object = tuple[str, str]  # its kind and its name
Enter = Callable[[str], Session]  # a session in another database
_PLACES = (
    "SELECT coalesce(d.datname, pg_catalog.current_database()), array_agg(s.refobjid::pg_catalog.int8)"
    "  FILTER (WHERE s.deptype = 'o'::pg_catalog.\"char\" AND s.classid <> ALL(ARRAY["
    "   'pg_catalog.pg_default_acl'::pg_catalog.regclass::pg_catalog.oid,"
    "   'pg_catalog.pg_user_mapping'::pg_catalog.regclass::pg_catalog.oid]))"
    " FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid"
    " WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid"
    "  AND s.refobjid = ANY(%s::pg_catalog.oid[]) GROUP BY 1"
)
_OBJECTS = (
    "SELECT i.type, i.identity FROM pg_catalog.pg_shdepend s"
    " CROSS JOIN LATERAL pg_catalog.pg_identify_object(s.classid, s.objid, s.objsubid) i"
    " WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid"
    "  AND i.identity IS NOT NULL"  # NULL: it is being dropped while this looks
    "  AND s.refobjid = %s::pg_catalog.oid AND s.deptype = 'o'::pg_catalog.\"char\" AND s.dbid ="
    "  (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())"
    # Schemas first: their new owner may create in them. Then the youngest: they depend on older objects.
    " ORDER BY i.type <> 'schema'::pg_catalog.text, s.objid DESC LIMIT %s"
)
_MAY_NOT, _IN_USE = "42501", "2BP01"
# What may be dropped when the template may not own it.
_EXPENDABLE = {
    "function", "procedure", "aggregate", "operator", "operator class", "operator family", "collation",
    "conversion", "text search configuration", "text search dictionary", "statistics object", "server",
    "publication",
}  # fmt: skip


def places(session: Session, oids: list[int]) -> dict[str, set[int]]:
    """The databases where something depends on one of the roles, and which of them own something there."""
    return {str(name): set(map(int, owning or [])) for name, owning in session.ask(_PLACES, (oids,))}


@contextlib.contextmanager
def inside(session: Session, enter: Enter, database: str) -> Iterator[Session]:
    """A session in that database: this one, or one that ends here. Raises Rejected."""
    if database == session.database:
        yield session
        return
    try:
        other = enter(database)
    except PostgresFailure as error:
        raise Rejected(f"a database where the role owns something cannot be entered: {error}") from None
    try:
        yield other
    finally:
        other.close()


def disowning(some: list[Standing], owning: set[int]) -> sql.Composed:
    """The statements for one database, where those of `owning` own something. Raises Rejected."""
    owners = sorted((one for one in some if one.oid in owning), key=lambda one: one.heir)
    statements = sql.Composed([])
    for heir, group in groupby(owners, key=lambda one: one.heir):
        if not heir:
            raise Rejected("the role owns something, and its template, which would take it over, is gone")
        reassign = sql.SQL("REASSIGN OWNED BY {} TO {}; ")
        statements += reassign.format(role_standing.names(group), sql.Identifier(heir))
    return statements + sql.SQL("DROP OWNED BY {}; ").format(role_standing.names(some))


def hand_over_in_pieces(session: Session, enter: Enter, one: Standing, seconds: float) -> None:
    """Hand over as much as there is time for; the next attempt for the whole says what is left.

    Raises Rejected when something is in use that the template may not own.
    """
    end = time.monotonic() + seconds / 2
    in_use = False
    for database in sorted(places(session, [one.oid])):
        with inside(session, enter, database) as there:
            if one.heir:
                in_use |= _hand_over(there, one, end)
            privileges.take_back(there, one)
    if in_use:
        raise Rejected("the role owns what its template may not own and something else depends on", _IN_USE)


def _hand_over(session: Session, one: Standing, end: float) -> bool:
    """Returns whether something stays because it is in use."""
    if not session.is_superuser:
        with contextlib.suppress(Rejected):  # we may be a member of the template without its rights
            session.ask(joining(session, [one.heir]))
    objects = [(str(kind), str(name)) for kind, name in session.ask(_OBJECTS, (one.oid, MOST))]
    refused: list[Object] = []
    for at in range(0, len(objects), PAGE):
        page = objects[at : at + PAGE]
        if time.monotonic() > end:
            return False
        if refusal_of(session, sql.SQL("; ").join(_giving(*each, one.heir) for each in page)):
            refused += [each for each in page if refusal_of(session, _giving(*each, one.heir)) == _MAY_NOT]
    expendable = [each for each in refused if each[0] in _EXPENDABLE]
    # The refusal counts only if it is the template that may not own them: we must be able to act as it.
    if not expendable or refusal_of(session, sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(one.heir))):
        return False
    return _drop_unused(session, expendable, end)


def _drop_unused(session: Session, objects: list[Object], end: float) -> bool:
    """Drop objects, again while that frees others of them; returns whether those left are in use."""
    while True:
        left: dict[Object, str] = {}
        for each in objects:
            if time.monotonic() > end:
                return False
            why = refusal_of(session, _dropping(*each))
            if why:
                left[each] = why
        if len(left) == len(objects):
            return _IN_USE in left.values()
        objects = list(left)


def _giving(kind: str, identity: str, heir: str) -> sql.Composed:
    return sql.SQL("ALTER {} OWNER TO {}").format(named(kind, identity), sql.Identifier(heir))


def _dropping(kind: str, identity: str) -> sql.Composable:
    return sql.SQL("DROP {} RESTRICT").format(named(kind, identity))
