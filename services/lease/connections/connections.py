"""Connections: a database server and the user by whom roles are made. Pure functions of a view.

Rules:
* Its password stands in the record as an envelope, numbered; no call returns it.
* A connection with live credentials is neither deleted nor moved to another server: nobody could end them. It
  may be closed: then no new ones are made, and it can be deleted when the last is gone.
* While the password is being changed two may be valid: the old one and the one that PostgreSQL may have been
  given. Both are kept until it is known which is, and any replica can go on with the change.
* Names are compared folded, as everywhere; a connection is found by its own spelling only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.lease import repository
from services.lease.connections.connection_passwords import SealedPassword
from services.lease.connections.database_roles import require_identifier
from services.lease.connections.server_cache import Stored
from services.lease.postgres.dsn import Server, parse_server
from strongbox import paths
from strongbox.access.record_reader import Lookup
from strongbox.errors import DependencyDown, InvalidInput, LiveLeases, NotFound
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease_records import counters
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store.decisions.view import View

Record = storage.ConnectionRecord
MAX_PASSWORD, MAX_CA = 1024, 64 << 10  # bytes
ROTATING_MS = 30_000  # a change of the password is taken up by others after so long


@dataclass(frozen=True, slots=True)
class Wanted:
    """A connection as a caller writes it."""

    name: str
    dsn: str
    server: Server
    username: str
    password: str = field(repr=False)
    ca: str = field(repr=False)


def policy_path(name: str) -> str:
    """What policies call a connection."""
    return f"sys/postgres/connections/{name}"


def parse(request: pb.WritePostgresConnectionRequest) -> Wanted:
    """Raises `InvalidInput`; no message quotes what was sent."""
    name = paths.require_name(request.name, "connection")
    server = parse_server(request.dsn)
    user = require_identifier(request.username or server.user, "username")
    password, ca = request.password, request.ca
    if not 1 <= len(password.encode("utf-8", "surrogatepass")) <= MAX_PASSWORD or "\0" in password:
        raise InvalidInput(f"password is 1 to {MAX_PASSWORD} bytes of text")
    if ca and ("-----BEGIN CERTIFICATE-----" not in ca or len(ca) > MAX_CA):
        raise InvalidInput("ca is one or more certificates in PEM")
    if server.sslmode == "verify-ca" and not ca:
        raise InvalidInput("sslmode verify-ca needs ca")
    return Wanted(name, request.dsn, server, user, password, ca)


def write(view: View, lookup: Lookup, wanted: Wanted, password: SealedPassword, version: str) -> Record:
    """Make or replace a connection. Raises `InvalidInput`, `LiveLeases`."""
    keys = lookup.require_keys()
    known = repository.find_connection(view, keys, wanted.name)
    if known is not None and known.name != wanted.name:
        raise InvalidInput("a connection of this name exists in other letters", name=known.name)
    if known is not None and _is_elsewhere(known.dsn, wanted.server):
        live = counters.connection_count(view, wanted.name)
        if live:
            raise LiveLeases("credentials that live are on the server that it names now", leases=str(live))
    number = max(known.version, known.next_version) + 1 if known is not None else 1
    record = Record(
        name=wanted.name,
        dsn=wanted.dsn,
        username=wanted.username,
        ca=wanted.ca,
        envelope=password.envelope(wanted.name, number),
        version=number,
        created_ms=known.created_ms if known is not None else view.now_ms,
        server_version=version,
    )
    lookup.require_current(record.envelope.term)
    repository.put_connection(view, keys, record)
    return record


def read(view: View, lookup: Lookup, name: str) -> Stored:
    """Raises `NotFound`."""
    found = repository.find_connection(view, lookup.require_keys(), name)
    if found is None or found.name != name:
        raise NotFound("there is no connection of that name")
    return Stored(found, view.get(repository.connection_key(name)).mod_revision)


def delete(view: View, lookup: Lookup, name: str, *, revoke: bool) -> int:
    """Remove a connection, there or not, or close it; returns how many credentials have to end first.

    Raises `NotFound` when it is there in other letters, and `LiveLeases` unless it may close.
    """
    keys = lookup.require_keys()
    found = repository.find_connection(view, keys, name)
    if found is not None and found.name != name:
        raise NotFound("there is no connection of that name")
    live = counters.connection_count(view, name) if found is not None else 0
    if found is None or not live:
        view.delete(repository.connection_key(name))
        return 0
    if not revoke:
        raise LiveLeases(f"{live} credentials of the connection live", leases=str(live))
    if not found.closing:
        closing = Record()
        closing.CopyFrom(found)
        closing.closing = True
        repository.put_connection(view, keys, closing)
    return live


def begin_rotation(view: View, lookup: Lookup, name: str, password: SealedPassword) -> Record:
    """Write the next password beside the valid one; returns the connection as it is then.

    A change that was left half done goes on with its own password: PostgreSQL may have that one already.
    Raises `NotFound`, and `DependencyDown` while somebody else changes it.
    """
    known = read(view, lookup, name).record
    changed = Record()
    changed.CopyFrom(known)
    if not known.HasField("next_envelope"):
        changed.next_version = known.version + 1
        changed.next_envelope.CopyFrom(password.envelope(name, changed.next_version))
        lookup.require_current(changed.next_envelope.term)
    elif view.now_ms - known.next_ms < ROTATING_MS:
        raise DependencyDown("its password is being changed by somebody else")
    changed.next_ms = view.now_ms
    repository.put_connection(view, lookup.require_keys(), changed)
    return changed


def settle_rotation(view: View, lookup: Lookup, name: str, number: int, *, holds: bool) -> int:
    """Keep the new password, or (if it was refused) the old one; returns when it was last changed (ms)."""
    known = read(view, lookup, name).record
    if not known.HasField("next_envelope") or known.next_version != number:
        return known.rotated_ms  # settled by somebody else
    changed = Record()
    changed.CopyFrom(known)
    if holds:
        changed.envelope.CopyFrom(known.next_envelope)
        changed.version, changed.rotated_ms = known.next_version, view.now_ms
    changed.ClearField("next_envelope")
    changed.next_version, changed.next_ms = 0, 0
    repository.put_connection(view, lookup.require_keys(), changed)
    return changed.rotated_ms


def _is_elsewhere(known: str, wanted: Server) -> bool:
    before = parse_server(known)
    return (before.host, before.port) != (wanted.host, wanted.port)
