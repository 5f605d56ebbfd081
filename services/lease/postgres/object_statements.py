"""Statements about single objects, as PostgreSQL names them."""

from __future__ import annotations

from psycopg2 import sql

from services.lease.postgres.errors import Rejected
from services.lease.postgres.session import Session

_BRIEFLY = "BEGIN; SET LOCAL lock_timeout = '50ms'; SET LOCAL statement_timeout = '1s'; "
_KEYWORDS = {
    "composite type": "TYPE",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
    "statistics object": "STATISTICS",
    "text search configuration": "TEXT SEARCH CONFIGURATION",
    "text search dictionary": "TEXT SEARCH DICTIONARY",
}


def keywords(kind: str) -> str:
    """What ALTER and DROP call a kind of objects."""
    return _KEYWORDS.get(kind, kind.upper())


def named(kind: str, identity: str) -> sql.Composable:
    """An object for ALTER or DROP, by what pg_identify_object says: quoted, and with its schema."""
    return sql.SQL(keywords(kind) + " ") + verbatim(identity)


def refusal_of(session: Session, statements: sql.Composable) -> str:
    """Run all or none, without waiting long for locks; returns the SQLSTATE of a refusal, or ""."""
    try:
        with session.transaction(commit=False):
            session.ask(sql.SQL(_BRIEFLY) + statements + sql.SQL("; COMMIT"))
    except Rejected as error:
        return error.sqlstate
    return ""


def verbatim(text: str) -> sql.SQL:
    """PostgreSQL's own text, as a part of a statement. (Braces count in what is formatted only.)"""
    return sql.SQL(text)
