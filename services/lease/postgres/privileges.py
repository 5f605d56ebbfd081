"""Privileges that REASSIGN OWNED and DROP OWNED leave: granted to a role, or by it, on what is another's.

An object's owner can grant the right to grant, and whoever has it grants in his own name. DROP OWNED takes
back what the owner granted and nothing else, and a role cannot go while its name stands in any privilege: so
a credential could keep itself, or another, for as long as it likes.

* Such a privilege is taken back in the name of who granted it, by us as him.
* If he is a member of the owner, PostgreSQL takes his REVOKE for the owner's, and finds nothing. Then the
  object is ours for the time of that one transaction, in which nobody else sees it. What we were granted
  on it ourselves is lost by that. (To leave it alone for that would let a credential grant us something on
  its table, and stay.)
* What it granted is taken back before what it was granted: without its right to grant, it could take nothing
  back, and PostgreSQL's CASCADE leaves what a member of the owner granted.
* Who is no superuser can do that for credentials and their template, not for what others granted.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from psycopg2 import sql

from services.lease.postgres.failures import Rejected
from services.lease.postgres.pieces import named, refusal_of, verbatim
from services.lease.postgres.roles import joining
from services.lease.postgres.session import Session
from services.lease.postgres.standing import Standing

# Where privileges stand: by the word for it in REVOKE, a source of (oid, acl), and its catalog. Schemas come
# after all that stands in one: without USAGE of it the role, as which we take back, does not find it there.
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
    "SELECT DISTINCT i.type, i.identity, g.rolname, e.rolname, o.rolname FROM (SOURCE) c (oid, acl)"
    " CROSS JOIN LATERAL pg_catalog.aclexplode(c.acl) a"
    " CROSS JOIN LATERAL pg_catalog.pg_identify_object("
    "  'pg_catalog.CATALOG'::pg_catalog.regclass::pg_catalog.oid, c.oid, 0) i"
    " JOIN pg_catalog.pg_roles g ON g.oid = a.grantor LEFT JOIN pg_catalog.pg_roles e ON e.oid = a.grantee"
    " LEFT JOIN pg_catalog.pg_shdepend s ON s.objid = c.oid AND s.deptype = 'o'::pg_catalog.\"char\""
    "  AND s.classid = 'pg_catalog.CATALOG'::pg_catalog.regclass::pg_catalog.oid AND s.objsubid = 0"
    " LEFT JOIN pg_catalog.pg_roles o ON o.oid = s.refobjid"
    " WHERE (a.grantee = %s::pg_catalog.oid OR a.grantor = %s::pg_catalog.oid)"
    "  AND (o.oid IS NULL OR o.oid <> %s::pg_catalog.oid) AND c.oid = ANY(array("
    "   SELECT d.objid FROM pg_catalog.pg_shdepend d WHERE d.refobjid = %s::pg_catalog.oid))"
)


class Granted(NamedTuple):
    """A privilege: on what, by whom, to whom (nobody: to all), and whose that is (nobody: the system's)."""

    kind: str
    identity: str
    grantor: str
    grantee: str | None
    owner: str | None


def take_back(session: Session, one: Standing) -> None:
    """Those that name the role, in this database, as far as that can be done."""
    for word, (source, catalog) in _HOLDERS.items():
        asking = _GRANTED.replace("SOURCE", source).replace("CATALOG", catalog)
        for is_grantor in (True, False):
            for each in _asked(session, asking, one, is_grantor=is_grantor):
                if not session.is_superuser:
                    with contextlib.suppress(Rejected):
                        session.ask(joining(session, [each.grantor]))
                refusal_of(session, _revoking(word, each))
            for each in _asked(session, asking, one, is_grantor=is_grantor):
                if each.owner is not None:
                    ours = sql.SQL("ALTER {} OWNER TO CURRENT_USER; ").format(named(each.kind, each.identity))
                    back = sql.SQL("; ALTER {} OWNER TO {}").format(
                        named(each.kind, each.identity), sql.Identifier(each.owner)
                    )
                    refusal_of(session, ours + _revoking(word, each) + back)


def _asked(session: Session, asking: str, one: Standing, *, is_grantor: bool) -> list[Granted]:
    found = [Granted(*row) for row in session.ask(asking, (one.oid,) * 4)]
    return [each for each in found if (each.grantor == one.username) is is_grantor]


def _revoking(word: str, each: Granted) -> sql.Composed:
    grantee = sql.SQL("PUBLIC") if each.grantee is None else sql.Identifier(each.grantee)
    return sql.SQL(
        "SET LOCAL ROLE {}; REVOKE ALL PRIVILEGES ON {} {} FROM {} CASCADE; SET LOCAL ROLE none"
    ).format(sql.Identifier(each.grantor), sql.SQL(word), verbatim(each.identity), grantee)
