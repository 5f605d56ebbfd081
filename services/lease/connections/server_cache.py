"""The servers that this process uses, each made from its connection's record when first needed."""

from __future__ import annotations

from typing import NamedTuple

from services.lease.connections.connection_passwords import Keys, open_passwords
from services.lease.postgres import dsn
from services.lease.postgres.connection_pool import Database, Login
from strongbox import paths
from strongbox.storage.v1 import lease_records_pb2 as storage


class Stored(NamedTuple):
    """A connection's record and the etcd revision at which it stood."""

    record: storage.ConnectionRecord
    revision: int


class Databases:
    """One server by connection. A newer revision of the record makes another; the old one's sessions end."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._open: dict[str, tuple[int, Database]] = {}

    def at(self, stored: Stored) -> Database:
        """The server of a connection."""
        name = paths.fold_name(stored.record.name)
        known = self._open.get(name)
        if known is not None and known[0] >= stored.revision:
            return known[1]
        if known is not None:
            known[1].close()
        made = self._made(stored.record)
        self._open[name] = (stored.revision, made)
        return made

    def known(self, stored: Stored) -> Database | None:
        """The server of a connection if there is one already; makes none."""
        found = self._open.get(paths.fold_name(stored.record.name))
        return found[1] if found is not None and found[0] >= stored.revision else None

    def close(self) -> None:
        """End all sessions and forget the passwords: the cluster is sealed, or the process stops."""
        for _, database in self._open.values():
            database.close()
        self._open.clear()

    def _made(self, record: storage.ConnectionRecord) -> Database:
        login = Login(dsn.parse_server(record.dsn), record.username, record.ca)
        return Database(login, lambda: open_passwords(self._keys, record))
