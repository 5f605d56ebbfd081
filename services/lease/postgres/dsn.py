"""Where a server is: `postgresql://host:port/database?sslmode=…`, checked, and as libpq takes it. Pure.

Rules:
* A URL with one host or several, without a password. The parameters it may have are listed here (`_KNOWN`);
  nothing else is passed on, so whoever may write a connection cannot make libpq read a file or run a command.
* TLS is verified (`verify-full`) unless the server is on this machine or the URL says otherwise.
* Only SCRAM and MD5 logins are made, so a false server never gets the password itself; and a server that
  lets anybody in without one is refused, since its credentials would mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import parse_dsn

from services.lease.postgres import pinned_settings
from strongbox.errors import InvalidInput

MAX_BYTES = 1024
_KNOWN = {"host", "port", "dbname", "user", "sslmode", "target_session_attrs"}
_MODES = {"disable", "require", "verify-ca", "verify-full"}
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True)
class Server:
    """A server and the database that is entered first; `user` is empty when the URL names none."""

    host: str
    port: str
    database: str
    user: str
    sslmode: str
    session_attributes: str

    def parameters(self) -> dict[str, str]:
        """The parameters for libpq, without user and password."""
        return {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "sslmode": self.sslmode,
            "target_session_attrs": self.session_attributes,
            "gssencmode": "disable",
            "require_auth": "scram-sha-256,md5",
            "application_name": "strongbox",
            "client_encoding": "UTF8",
            # The kernel notices a frozen or vanished host too, if a thread should ever outlive its job.
            "tcp_user_timeout": "5000",
            "keepalives_idle": "10",
            "options": pinned_settings.options(),
        }


def parse_server(text: str) -> Server:
    """The server that a URL names. Raises `InvalidInput`, which never quotes it."""
    if not text.startswith(("postgresql://", "postgres://")) or len(text.encode()) > MAX_BYTES:
        raise InvalidInput("dsn is a URL: postgresql://host:port/database")
    if any(ord(character) < 33 or ord(character) == 127 for character in text):
        raise InvalidInput("dsn has white space or a control character")
    try:
        said = {str(name): str(value) for name, value in parse_dsn(text).items()}
    except (psycopg2.Error, UnicodeError):
        raise InvalidInput("dsn is not a URL that PostgreSQL understands") from None
    if "password" in said:
        raise InvalidInput("dsn holds a password; it has a field of its own")
    unknown = sorted(said.keys() - _KNOWN)
    if unknown:
        raise InvalidInput(f"dsn may say {' '.join(sorted(_KNOWN))}, and nothing else")
    return _server(said)


def _server(said: dict[str, str]) -> Server:
    host, port = said.get("host", ""), said.get("port", "5432")
    hosts = host.split(",")
    if not all(hosts) or any(one.startswith(("/", "@")) for one in hosts):
        raise InvalidInput("dsn names a host to reach over TCP")
    if not all(one.isdigit() and 0 < int(one) < 65536 for one in port.split(",")):
        raise InvalidInput("dsn has a port that is none")
    is_here = _LOOPBACK.issuperset(hosts)
    mode = said.get("sslmode", "prefer" if is_here else "verify-full")
    if mode not in _MODES and not (mode == "prefer" and is_here):
        raise InvalidInput(f"sslmode is one of {' '.join(sorted(_MODES))}")
    return Server(
        host=host,
        port=port,
        database=said.get("dbname", "postgres"),
        user=said.get("user", ""),
        sslmode=mode,
        session_attributes=said.get("target_session_attrs", "any"),
    )
