"""Privileges that REASSIGN OWNED and DROP OWNED leave: granted to a role, or by it, on others' objects.

An object's owner can grant the right to grant, and whoever has it grants in its own name. DROP OWNED revokes
what the owner granted and nothing else, and a role cannot be dropped while any privilege names it: so a
credential could keep itself, or another, from being dropped for as long as it likes.

* Such a privilege is revoked in its grantor's name: we act as the grantor (SET LOCAL ROLE).
* If the grantor is a member of the owner, PostgreSQL takes its REVOKE for the owner's, and revokes nothing.
  Then the object is made ours for that one transaction, in which nobody else sees it. Privileges on it that
  we had been granted are lost. (If that kept us from it, a credential could stay by granting us one.)
* What the role granted is revoked before what it was granted: without its right to grant it could revoke
  nothing, and PostgreSQL's CASCADE leaves what a member of the owner granted.
* A schema's owner can revoke the grantor's USAGE of it, so that the grantor does not find the object, or the
  object owner's CREATE, so that the object cannot be given back. For the transaction that revokes, both are
  granted again, in the name of the schema's owner.
* Without superuser this works for what credentials and their template granted, not for what others did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from psycopg2 import sql

from services.lease.postgres.ending.role_standing import Standing
from services.lease.postgres.errors import Rejected
from services.lease.postgres.login_roles import joining
from services.lease.postgres.object_statements import named, refusal_of, verbatim
from services.lease.postgres.session import Session

_DENIED = "42501"
# Where privileges are kept: by REVOKE's word for the object, a query for (oid, acl), and its catalog. Schemas
# come after the objects in them: without USAGE the role as which we revoke does not find these.
_COLUMNS = " UNION ALL SELECT attrelid, attacl FROM pg_catalog.pg_attribute"
_RELATIONS = "SELECT oid, relacl FROM pg_catalog.pg_class WHERE relkind {} 'S'::pg_catalog.\"char\""
_HOLDERS = {
    "TABLE": (_RELATIONS.format("<>") + _COLUMNS, "pg_class"),
    "SEQUENCE": (_RELATIONS.format("="), "pg_class"),
    "ROUTINE": ("SELECT oid, proacl FROM pg_catalog.pg_proc", "pg_proc"),
    "TYPE": ("SELECT oid, typacl FROM pg_catalog.pg_type", "pg_type"),
    "SCHEMA": ("SELECT oid, nspacl FROM pg_catalog.pg_namespace", "pg_namespace"),
    "LANGUAGE": ("SELECT oid, lanacl FROM pg_catalog.pg_language", "pg_language"),
    "FOREIGN SERVER": ("SELECT oid, srvacl FROM pg_catalog.pg_foreign_server", "pg_foreign_server"),
    "FOREIGN DATA WRAPPER": (
        "SELECT oid, fdwacl FROM pg_catalog.pg_foreign_data_wrapper",
        "pg_foreign_data_wrapper",
    ),
    "LARGE OBJECT": ("SELECT oid, lomacl FROM pg_catalog.pg_largeobject_metadata", "pg_largeobject"),
    "DATABASE": ("SELECT oid, datacl FROM pg_catalog.pg_database", "pg_database"),
    "TABLESPACE": ("SELECT oid, spcacl FROM pg_catalog.pg_tablespace", "pg_tablespace"),
}
_GRANTED = (
    "SELECT DISTINCT i.type, i.identity, g.rolname, e.rolname, o.rolname, i.schema, p.rolname,"
    " coalesce(pg_catalog.has_schema_privilege(g.oid, n.oid, 'USAGE'), true),"
    " coalesce(pg_catalog.has_schema_privilege(o.oid, n.oid, 'CREATE'), true)"
    " FROM (SOURCE) c (oid, acl)"
    " CROSS JOIN LATERAL pg_catalog.aclexplode(c.acl) a"
    " CROSS JOIN LATERAL pg_catalog.pg_identify_object("
    "  'pg_catalog.CATALOG'::pg_catalog.regclass::pg_catalog.oid, c.oid, 0) i"
    " JOIN pg_catalog.pg_roles g ON g.oid = a.grantor LEFT JOIN pg_catalog.pg_roles e ON e.oid = a.grantee"
    " LEFT JOIN pg_catalog.pg_shdepend s ON s.objid = c.oid AND s.deptype = 'o'::pg_catalog.\"char\""
    "  AND s.classid = 'pg_catalog.CATALOG'::pg_catalog.regclass::pg_catalog.oid AND s.objsubid = 0"
    " LEFT JOIN pg_catalog.pg_roles o ON o.oid = s.refobjid"
    " LEFT JOIN pg_catalog.pg_namespace n ON pg_catalog.quote_ident(n.nspname) = i.schema"
    " LEFT JOIN pg_catalog.pg_roles p ON p.oid = n.nspowner"
    " WHERE i.identity IS NOT NULL"  # NULL: it is being dropped while this looks
    "  AND (a.grantee = %s::pg_catalog.oid OR a.grantor = %s::pg_catalog.oid)"
    "  AND (o.oid IS NULL OR o.oid <> %s::pg_catalog.oid) AND c.oid = ANY(array("
    "   SELECT d.objid FROM pg_catalog.pg_shdepend d WHERE d.refobjid = %s::pg_catalog.oid))"
)


class Granted(NamedTuple):
    """A privilege on an object. `grantee` None: PUBLIC; `owner` None: the system.

    `schema`: the object's, as PostgreSQL quotes it, with its owner; None for an object in none. `may_look`:
    the grantor has USAGE of the schema; `may_put`: the object's owner has CREATE there.
    """

    kind: str
    identity: str
    grantor: str
    grantee: str | None
    owner: str | None
    schema: str | None
    schema_owner: str | None
    may_look: bool
    may_put: bool

    @property
    def needed(self) -> list[tuple[str, str]]:
        """The rights in the schema that are missing, each with the role that needs it."""
        wanted = [("USAGE", self.grantor, self.may_look), ("CREATE", str(self.owner), self.may_put)]
        return [(right, who) for right, who, is_there in wanted if not is_there]


def take_back(session: Session, one: Standing) -> None:
    """Revoke the privileges that name the role, in this database, as far as possible."""
    for word, (source, catalog) in _HOLDERS.items():
        asking = _GRANTED.replace("SOURCE", source).replace("CATALOG", catalog)
        for is_grantor in (True, False):
            for each in _asked(session, asking, one, is_grantor=is_grantor):
                _be_able_to_be(session, each.grantor)
                _take(session, word, each, _as_it_stands)
            for each in _asked(session, asking, one, is_grantor=is_grantor):
                if each.owner is not None:
                    _take(session, word, each, _while_ours)


def _take(
    session: Session, word: str, each: Granted, how: Callable[[Granted, sql.Composable], sql.Composable]
) -> None:
    refusal = refusal_of(session, how(each, _revoking(word, each)))
    if refusal == _DENIED and each.schema_owner is not None and each.needed:
        _be_able_to_be(session, each.schema_owner)
        refusal_of(session, _reaching(each, how(each, _revoking(word, each))))


def _be_able_to_be(session: Session, name: str) -> None:
    if not session.is_superuser:
        with contextlib.suppress(Rejected):
            session.ask(joining(session, [name]))


def _as_it_stands(_: Granted, statements: sql.Composable) -> sql.Composable:
    return statements


def _while_ours(each: Granted, statements: sql.Composable) -> sql.Composable:
    """The statements, with the object owned by us meanwhile."""
    what = named(each.kind, each.identity)
    ours = sql.SQL("ALTER {} OWNER TO CURRENT_USER; ").format(what)
    back = sql.SQL("; ALTER {} OWNER TO {}").format(what, sql.Identifier(str(each.owner)))
    return ours + statements + back


def _reaching(each: Granted, statements: sql.Composable) -> sql.Composable:
    """The statements, with the rights that are missing in the schema granted by its owner meanwhile."""
    there = [_in_schema(each, "GRANT {} ON SCHEMA {} TO {}", right, who) for right, who in each.needed]
    away = [_in_schema(each, "REVOKE {} ON SCHEMA {} FROM {}", right, who) for right, who in each.needed]
    return sql.SQL("; ").join([*there, statements, *away])


def _in_schema(each: Granted, change: str, right: str, who: str) -> sql.Composable:
    return sql.SQL("SET LOCAL ROLE {}; " + change + "; SET LOCAL ROLE none").format(
        sql.Identifier(str(each.schema_owner)),
        sql.SQL(right),
        verbatim(str(each.schema)),
        sql.Identifier(who),
    )


def _asked(session: Session, asking: str, one: Standing, *, is_grantor: bool) -> list[Granted]:
    found = [Granted(*row) for row in session.ask(asking, (one.oid,) * 4)]
    return [each for each in found if (each.grantor == one.username) is is_grantor]


def _revoking(word: str, each: Granted) -> sql.Composed:
    grantee = sql.SQL("PUBLIC") if each.grantee is None else sql.Identifier(each.grantee)
    return sql.SQL(
        "SET LOCAL ROLE {}; REVOKE ALL PRIVILEGES ON {} {} FROM {} CASCADE; SET LOCAL ROLE none"
    ).format(sql.Identifier(each.grantor), sql.SQL(word), verbatim(each.identity), grantee)
