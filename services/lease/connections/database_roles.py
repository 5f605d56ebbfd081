"""Database roles: what credentials of a name may do and how long they live. Pure functions of a view.

Rules:
* When a role is written its connection must exist, and so must its template: a role in the database of which
  every credential is a member, and which takes over what a credential leaves.
* Times to live are 1 s to 32 days; `default_ttl` is not longer than `max_ttl`.
* Names are compared folded, as everywhere; a role is found by its own spelling only.
* Deleting a role ends nothing: credentials made from it live on until they expire or are revoked.
"""

from __future__ import annotations

from services.lease import repository
from services.lease.connections.server_cache import Stored
from strongbox import paths
from strongbox.access.record_reader import Lookup
from strongbox.durations import parse_duration
from strongbox.errors import InvalidInput, NotFound
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store.decisions.view import View

Record = storage.DatabaseRoleRecord
DEFAULT_TTL_S, DEFAULT_MAX_TTL_S, LONGEST_S = 3600, 86_400, 32 * 86_400
DEFAULT_MAX_LEASES, MOST_LEASES = 10_000, 1_000_000
MAX_IDENTIFIER = 63  # bytes; PostgreSQL would cut a longer name, and so mean another role


def policy_path(name: str) -> str:
    """What policies call a database role."""
    return f"sys/postgres/roles/{name}"


def parse(request: pb.WritePostgresRoleRequest) -> Record:
    """The record to write. Raises `InvalidInput`."""
    default_s = parse_duration(request.default_ttl, "default_ttl")
    max_s = parse_duration(request.max_ttl, "max_ttl")
    default_s = min(DEFAULT_TTL_S, max_s or DEFAULT_TTL_S) if default_s is None else default_s
    max_s = max(DEFAULT_MAX_TTL_S, default_s) if max_s is None else max_s
    if not 1 <= default_s <= max_s <= LONGEST_S:
        raise InvalidInput("1 s ≤ default_ttl ≤ max_ttl ≤ 32 d")
    if not 0 <= request.max_leases <= MOST_LEASES:
        raise InvalidInput(f"max_leases is 1 to {MOST_LEASES}")
    return Record(
        name=paths.require_name(request.name, "database role"),
        connection=paths.require_name(request.connection, "connection"),
        template_role=require_template(request.template_role),
        default_ttl_s=default_s,
        max_ttl_s=max_s,
        max_leases=request.max_leases or DEFAULT_MAX_LEASES,
    )


def require_template(text: str) -> str:
    """Return the name of a role that may have members. Raises `InvalidInput`."""
    if text in ("none", "public"):  # reserved, in quotes as well
        raise InvalidInput("template_role is a role of its own: none and public are not")
    return require_identifier(text, "template_role")


def require_identifier(text: str, field: str) -> str:
    """Return the name of a role in PostgreSQL. Raises `InvalidInput`."""
    if not 1 <= len(text.encode("utf-8", "surrogatepass")) <= MAX_IDENTIFIER or not text.isprintable():
        raise InvalidInput(f"{field} is a role's name: 1 to {MAX_IDENTIFIER} bytes, printable")
    return text


def write(view: View, lookup: Lookup, record: Record) -> Record:
    """Make or replace a role. Raises `InvalidInput`."""
    keys = lookup.require_keys()
    known = repository.find_role(view, keys, record.name)
    if known is not None and known.name != record.name:
        raise InvalidInput("a database role of this name exists in other letters", name=known.name)
    connection_of(view, lookup, record)
    repository.put_role(view, keys, record)
    return record


def connection_of(view: View, lookup: Lookup, record: Record) -> Stored:
    """The connection that a role names. Raises `InvalidInput`."""
    connection = repository.find_connection(view, lookup.require_keys(), record.connection)
    if connection is None or connection.name != record.connection:
        raise InvalidInput("there is no connection of that name")
    return Stored(connection, view.get(repository.connection_key(connection.name)).mod_revision)


def read(view: View, lookup: Lookup, name: str) -> Record:
    """Raises `NotFound`."""
    found = repository.find_role(view, lookup.require_keys(), name)
    if found is None or found.name != name:
        raise NotFound("there is no database role of that name")
    return found


def delete(view: View, lookup: Lookup, name: str) -> None:
    """Remove a role, there or not. Raises `NotFound` when it is there in other letters."""
    found = repository.find_role(view, lookup.require_keys(), name)
    if found is not None and found.name != name:
        raise NotFound("there is no database role of that name")
    view.delete(repository.role_key(name))
