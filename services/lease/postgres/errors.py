"""What can go wrong with PostgreSQL, without its own texts where those could hold a secret.

PostgresFailure
├── Unreachable     no session: nobody there, no answer in time, TLS that does not verify
│   └── Full        the server is there and has no session free for this user
├── LoginRefused    the server does not take the user's password, or offers a login that we refuse
├── Rejected        the server said no to a statement; it has had no effect
└── Lost            the session broke, or the deadline passed, under way: it may have had an effect
"""

from __future__ import annotations

import psycopg2

# After these a repetition may succeed: somebody else changed the same thing at the same time.
_TRANSIENT = {"XX000", "40001", "40P01", "55P03", "55006", "2BP01"}
_LOGIN = {"28000", "28P01"}
# Class 53, insufficient resources, as the server and pgbouncer say it; libpq gives no code while it connects.
_FULL = (
    "too many connections for",
    "too many clients already",
    "remaining connection slots are reserved",
    "no more connections allowed",
)


class PostgresFailure(Exception):
    """`sqlstate` is PostgreSQL's own five characters, or empty."""

    def __init__(self, text: str, sqlstate: str = "") -> None:
        super().__init__(f"{text} ({sqlstate})" if sqlstate else text)
        self.sqlstate = sqlstate


class Unreachable(PostgresFailure):
    """There is no session."""


class Full(Unreachable):
    """All sessions that this user may have are in use."""


class LoginRefused(PostgresFailure):
    """The server does not let the user in."""


class Rejected(PostgresFailure):
    """A statement was refused."""

    @property
    def is_transient(self) -> bool:
        """Whether trying again may help."""
        return self.sqlstate in _TRANSIENT

    @property
    def is_locked(self) -> bool:
        """Whether somebody else has it locked."""
        return self.sqlstate == "55P03"


class Lost(PostgresFailure):
    """Whether the last statement had an effect is not known."""


class DeadlinePassed(Exception):
    """The time of a job is over; raised inside the thread that does it."""


def of_statement(error: psycopg2.Error) -> PostgresFailure:
    """A failure while a session was in use."""
    if error.pgcode and not error.pgcode.startswith(("08", "57P")):
        return Rejected(_sentence(error.pgcode), error.pgcode)
    return Lost("the session with PostgreSQL broke", error.pgcode or "")


def of_connecting(error: psycopg2.Error) -> PostgresFailure:
    """A failure before there was a session. libpq gives few codes, so its text is searched."""
    text = str(error)
    code = error.pgcode or ""
    if code in _LOGIN or "password authentication failed" in text or "authentication method" in text:
        return LoginRefused("PostgreSQL does not take this user's password", code)
    if "no pg_hba.conf entry" in text or "does not exist" in text or "not permitted to log in" in text:
        return LoginRefused("PostgreSQL does not let this user into this database", code)
    if code.startswith("53") or any(sentence in text for sentence in _FULL):
        return Full("PostgreSQL has no connection free for this user", code or "53300")
    if "unsupported startup parameter" in text:
        return Unreachable("a pooler in front of PostgreSQL refuses what every session of ours asks for")
    if "certificate" in text or "SSL" in text:
        return Unreachable("TLS with PostgreSQL failed", code)
    return Unreachable("PostgreSQL does not answer", code)


def is_pooler_refusal(error: psycopg2.Error) -> bool:
    """Whether a pooler takes no `options` (pgbouncer, unless it is told to ignore them)."""
    return "unsupported startup parameter" in str(error) and "options" in str(error)


def _sentence(code: str) -> str:
    """Our text for a code: PostgreSQL's own may quote the statement."""
    return {
        "42501": "the connection's user has not the right to do this",
        "42704": "a role that is named does not exist in the database",
        "42710": "a role of this name exists already",
        "42939": "a role that is named is none that can be given",
        "57014": "PostgreSQL took too long",
        "55P03": "something in the database is locked, by a session or a prepared transaction",
        "2BP01": "the role still owns something",
        "55006": "the role is in use",
    }.get(code, "PostgreSQL refused")
