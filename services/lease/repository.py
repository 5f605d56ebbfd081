"""Grants, connections and database roles in etcd: authenticated records, read and written through a view.

grants/<id>                     the lease of a credential; `index` and `counters` lead to it and count it
postgres/connections/<folded>   a server and the user by whom roles are made, its password in an envelope
postgres/roles/<folded>         what credentials of a name may do
"""

from __future__ import annotations

from typing import Any, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from services.lease import credential_lease
from strongbox import paths
from strongbox.access.authenticated_records import Forged, find_record, open_record, seal_record
from strongbox.crypto.record_keys import RecordKeys
from strongbox.lease_records import counters, index
from strongbox.lease_records.counters import Tally
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

M = TypeVar("M", bound=Message)
_log = structlog.get_logger(__name__)


def find_grant(view: View, keys: RecordKeys, name: str) -> credential_lease.Record | None:
    """A credential's lease, not to be changed; `None` when absent or forged."""
    return _find(view, keys, keyspace.grant(name), storage.GrantRecord)


def put_grant(
    view: View,
    keys: RecordKeys,
    record: credential_lease.Record,
    known: credential_lease.Record | None,
    tally: Tally,
) -> None:
    """Write `record` in place of `known`, with its index entries; the caller settles the tally."""
    _count(tally, record, int(credential_lease.is_live(record)) - int(credential_lease.is_live(known)))
    if known is None:
        for key in _ways(record):
            view.put(key, b"")
    if known is None or _due_key(known) != _due_key(record):
        if known is not None:
            view.delete(_due_key(known))
        view.put(_due_key(record), b"")
    _put(view, keys, keyspace.grant(record.id), record)


def drop_grant(view: View, record: credential_lease.Record, tally: Tally) -> None:
    """Delete the lease and its index entries."""
    _count(tally, record, -int(credential_lease.is_live(record)))
    for key in (keyspace.grant(record.id), _due_key(record), *_ways(record)):
        view.delete(key)


def find_connection(view: View, keys: RecordKeys, name: str) -> storage.ConnectionRecord | None:
    """A connection by any spelling of its name; `None` when absent or forged."""
    return _find(view, keys, connection_key(name), storage.ConnectionRecord)


def put_connection(view: View, keys: RecordKeys, record: storage.ConnectionRecord) -> None:
    """Write a connection."""
    _put(view, keys, connection_key(record.name), record)


def connection_key(name: str) -> bytes:
    """The etcd key of a connection."""
    return keyspace.postgres_connection(paths.fold_name(name))


def find_role(view: View, keys: RecordKeys, name: str) -> storage.DatabaseRoleRecord | None:
    """A database role by any spelling of its name; `None` when absent or forged."""
    return _find(view, keys, role_key(name), storage.DatabaseRoleRecord)


def put_role(view: View, keys: RecordKeys, record: storage.DatabaseRoleRecord) -> None:
    """Write a database role."""
    _put(view, keys, role_key(record.name), record)


def role_key(name: str) -> bytes:
    """The etcd key of a database role."""
    return keyspace.postgres_role(paths.fold_name(name))


def _due_key(record: credential_lease.Record) -> bytes:
    return index.due_key(credential_lease.due_ms(record), record.id)


def _ways(record: credential_lease.Record) -> tuple[bytes, ...]:
    return (
        index.by_path_key(record.path, record.id),
        index.by_accessor_key(record.accessor, record.id),
        index.by_connection_key(record.connection, record.id),
    )


def _count(tally: Tally, record: credential_lease.Record, by: int) -> None:
    for key in counters.keys_of(record):
        tally.move(key, by)
    tally.move(counters.connection_key(record.connection, record.id), by)
    tally.move(counters.role_key(record.role), by)


def _put(view: View, keys: RecordKeys, key: bytes, record: Message) -> None:
    view.put(key, seal_record(keys, key, record.SerializeToString(deterministic=True)))


def _find(view: View, keys: RecordKeys, at: bytes, kind: type[M]) -> M | None:
    def parse(key: bytes, value: bytes) -> Any:
        try:
            return kind.FromString(open_record(keys, key, value))
        except (Forged, DecodeError) as error:
            _log.error("a forged record grants nothing", key=key.decode("ascii", "replace"), why=str(error))
            return None

    found: M | None = find_record(view, at, parse)
    return found
