"""What the connection's user owns, in each database: earlier versions gave it what credentials had made.

That is dangerous: a SECURITY DEFINER function, a view and a rule may do what their *owner* may. What initdb
made, what belongs to an extension, and what is part of another object (a table's row type) is left out.
Casts, triggers and policies have no owner: look at their functions and tables.

Rules:
* Each catalogue is searched by owner, not pg_shdepend: that has no rows for PostgreSQL's first superuser.
* Bounded, since whoever may create objects decides how many there are and what they are called: `MOST`
  objects, `MOST_BYTES` of names, those that run as their owner first; no database takes more than half of the
  time that is left.
"""

from __future__ import annotations

from typing import NamedTuple

from services.lease.postgres.answer_deadline import time_left
from services.lease.postgres.ending.owned_objects import Enter, inside
from services.lease.postgres.errors import PostgresFailure
from services.lease.postgres.object_statements import keywords
from services.lease.postgres.session import Session

MOST = 1000  # objects
MOST_BYTES = 1 << 20  # of names; a gRPC message holds 4 MiB
RESERVE = 0.4  # seconds of a job in which no further database is entered
# Catalogue, the column of its owner, what runs with the owner's rights, what counts.
_NEVER, _ANY = "false", "true"
_CATALOGUES = (
    ("pg_proc", "proowner", "o.prosecdef", _ANY),
    # Views have a rule too. Indexes, TOAST and row types go with their table or type.
    ("pg_class", "relowner", "o.relhasrules", "o.relkind <> ALL('{i,I,t,c}'::pg_catalog.\"char\"[])"),
    ("pg_event_trigger", "evtowner", _NEVER, _ANY),
    ("pg_operator", "oprowner", _NEVER, _ANY),
    ("pg_opclass", "opcowner", _NEVER, _ANY),
    ("pg_opfamily", "opfowner", _NEVER, _ANY),
    ("pg_type", "typowner", _NEVER, _ANY),
    ("pg_namespace", "nspowner", _NEVER, _ANY),
    ("pg_largeobject_metadata", "lomowner", _NEVER, _ANY),
    ("pg_foreign_server", "srvowner", _NEVER, _ANY),
    ("pg_foreign_data_wrapper", "fdwowner", _NEVER, _ANY),
    ("pg_language", "lanowner", _NEVER, _ANY),
    ("pg_publication", "pubowner", _NEVER, _ANY),
    ("pg_collation", "collowner", _NEVER, _ANY),
    ("pg_conversion", "conowner", _NEVER, _ANY),
    ("pg_statistic_ext", "stxowner", _NEVER, _ANY),
    ("pg_ts_config", "cfgowner", _NEVER, _ANY),
    ("pg_ts_dict", "dictowner", _NEVER, _ANY),
)
_CALLED = {"pg_largeobject_metadata": "pg_largeobject"}  # where PostgreSQL names objects by another catalogue
_EACH = (
    "SELECT 'pg_catalog.{4}'::pg_catalog.regclass::pg_catalog.oid AS classid, o.oid AS objid, {2} AS runs"
    " FROM pg_catalog.{0} o JOIN pg_catalog.pg_roles r ON r.oid = o.{1}"
    " WHERE r.rolname = CURRENT_USER AND o.oid >= '16384'::pg_catalog.oid AND {3}"  # below: initdb's
)
_OWNED = (
    "SELECT i.type, i.identity, c.runs FROM (SELECT * FROM ("  # noqa: S608 (all of it is ours)
    + " UNION ALL ".join(_EACH.format(*one, _CALLED.get(one[0], one[0])) for one in _CATALOGUES)
    + ") a WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = a.classid"
    "  AND d.objid = a.objid AND d.objsubid = 0 AND d.deptype = ANY('{e,i}'::pg_catalog.\"char\"[]))"
    " ORDER BY a.runs DESC, a.classid, a.objid LIMIT %s) c"
    " CROSS JOIN LATERAL pg_catalog.pg_identify_object(c.classid, c.objid, 0) i"
    " WHERE i.identity IS NOT NULL ORDER BY c.runs DESC, c.classid, c.objid"
)
_DATABASES = (
    "SELECT d.datname, pg_catalog.has_database_privilege(d.oid, 'CONNECT'::pg_catalog.text)"
    " FROM pg_catalog.pg_database d WHERE d.datallowconn"
    " ORDER BY d.datname <> pg_catalog.current_database(), d.datname"
)


class Owned(NamedTuple):
    """An object, as PostgreSQL names it; `runs_as_owner`: whoever uses it acts with its owner's rights."""

    database: str
    kind: str
    identity: str
    runs_as_owner: bool

    @property
    def hand_over(self) -> str:
        """The statement that gives it to another role; the reader fills in that name."""
        return f"ALTER {keywords(self.kind)} {self.identity} OWNER TO …"


class Found(NamedTuple):
    """`more`: there are more objects; `left_out`: databases that could not be searched (in time)."""

    objects: list[Owned]
    more: bool
    left_out: list[str]


def owned(session: Session, enter: Enter) -> Found:
    """What the session's user owns, in this database first. Raises PostgresFailure."""
    objects: list[Owned] = []
    left_out: list[str] = []
    room = MOST_BYTES
    for database, may in session.ask(_DATABASES):
        if not may or time_left() < RESERVE:
            left_out.append(str(database))
            continue
        try:
            with inside(session, enter, str(database)) as there:
                rows = _ask(there, MOST - len(objects) + 1)
        except PostgresFailure:
            left_out.append(str(database))
            continue
        for kind, identity, runs in rows:
            room -= len(str(identity).encode())
            if len(objects) == MOST or room < 0:
                return Found(objects, True, left_out)
            objects.append(Owned(str(database), str(kind), str(identity), bool(runs)))
    return Found(objects, False, left_out)


def _ask(there: Session, most: int) -> list[tuple[str, str, bool]]:
    limit_ms = max(1, round(time_left() * 500))
    with there.transaction():
        # One message: behind a pooler each one sets the session's own limit first.
        rows = there.ask(f"SET LOCAL statement_timeout = {limit_ms}; {_OWNED}", (most,))
        return [(kind, identity, runs) for kind, identity, runs in rows]
