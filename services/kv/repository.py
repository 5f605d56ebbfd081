r"""Secrets in etcd: which keys hold them, and how these are changed. All through a view.

    kv/head/<path>                   SecretHead, authenticated: metadata, the last operations, and of each
                                     kept version its times, its size and which data key it has
    kv/envelope/<path>\0<version>    the Envelope of each version; rewrapped or removed, never else changed
    kv/purge/<path>\0<version>       PurgeRecord: destroyed together; named by the lowest of their versions
    kv/purge/<path>\0removed         PurgeRecord: the whole secret was removed; keeps its last operations, so
                                     that a repeated request finds them, until the duty has purged

An envelope is made or removed in one transaction with its head, and the head names the envelope's data key.
So it is enough to compare the head: an envelope with that data key is the right one, wherever it was seen.

The head is under a MAC for its etcd key (`authenticated_records`): somebody who can write to etcd can neither
change one nor move one. One that does not verify is `Internal`, never "there is no secret": otherwise the
next write would begin again at version 1, and `cas` 0 would succeed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import structlog
from google.protobuf.message import DecodeError

from services.kv import versions
from services.kv.idempotency import Operation, remembered
from strongbox.access.authenticated_records import (
    Forged,
    KeyNotHere,
    RecordKeys,
    open_record,
    require_never_was,
    seal_record,
)
from strongbox.access.record_reader import Lookup
from strongbox.errors import Internal
from strongbox.storage.v1 import envelope_pb2
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

_REMOVED = b"removed"
_log = structlog.get_logger(__name__)


class Unreadable(NamedTuple):
    """What stands at a head's key and was not put there by kv."""

    why: str


class Repository:
    """Secrets in etcd, authenticated by the keys of `lookup`. All methods raise `Sealed` without them."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def head(self, view: View, path: str) -> storage.SecretHead | None:
        """A secret's head, not to be changed; `None` when there is no secret. Raises `Internal`: forged."""
        found = self.head_or_junk(view, path)
        if isinstance(found, Unreadable):
            raise Internal
        return found

    def head_or_junk(self, view: View, path: str) -> storage.SecretHead | Unreadable | None:
        """As `head`, but returns `Unreadable` instead of raising `Internal`."""
        keys = self._lookup.require_keys()

        def parse(key: bytes, value: bytes) -> storage.SecretHead | Unreadable:
            return _to_head(keys, key, value)

        try:
            return view.parsed(keyspace.head(path), parse)
        except KeyNotHere as late:  # raised, so not remembered: the key may still arrive
            require_never_was(view, late)
            return Unreadable("a key term that never was")

    def operations(self, view: View, path: str) -> tuple[Sequence[Operation], int]:
        """The last operations of a secret, present or just removed, and the revision of its last change."""
        found = self.head(view, path)
        if found is not None:
            return found.operations, view.get(keyspace.head(path)).mod_revision
        tomb = view.parsed(tomb_key(path), _to_purge)
        return (tomb.operations, view.get(tomb_key(path)).mod_revision) if tomb is not None else ((), 0)

    def put_new_version(
        self,
        view: View,
        path: str,
        change: versions.Change,
        sealed: envelope_pb2.Envelope,
        operation: Operation,
    ) -> None:
        """Put a new version's envelope and the head that names it."""
        newest = change.head.versions[-1]
        newest.size, newest.dek_id = len(sealed.ciphertext), sealed.dek_id
        view.put(keyspace.envelope(path, newest.version), sealed.SerializeToString())
        self.put_change(view, path, change, operation)

    def put_change(
        self, view: View, path: str, change: versions.Change, operation: Operation | None = None
    ) -> None:
        """Put the changed head, and delete the envelopes that it no longer has."""
        known, revision = self.operations(view, path)
        after = change.head
        del after.operations[:]
        after.operations.extend(remembered(known, operation, revision))
        for version in change.gone:
            view.delete(keyspace.envelope(path, version))
        key, body = keyspace.head(path), after.SerializeToString(deterministic=True)
        view.put(key, seal_record(self._lookup.require_keys(), key, body))

    def remove(self, view: View, path: str, found: storage.SecretHead, operation: Operation) -> None:
        """Delete the whole secret, and ask the duty to purge it."""
        known, revision = self.operations(view, path)
        gone = versions.stored(found)
        for version in gone:
            view.delete(keyspace.envelope(path, version))
        view.delete(keyspace.head(path))
        tomb = storage.PurgeRecord(
            path=path, versions=gone, at_ms=view.now_ms, operations=remembered(known, operation, revision)
        )
        view.put(tomb_key(path), tomb.SerializeToString(deterministic=True))


def envelope(
    view: View, path: str, version: storage.StoredVersion, *, compared: bool = False
) -> envelope_pb2.Envelope | None:
    """The envelope of a kept version of a head that is compared; `None` when it is not there.

    The remembered one may be under an older key term than the one in etcd; `compared`: etcd's is taken.
    """
    key = keyspace.envelope(path, version.version)
    if not compared:
        found = view.known(key, _to_envelope)
        if found is not None and found.dek_id == version.dek_id:
            return found
    # None, or another one, is remembered: now the transaction compares the key, so that an old memory does
    # not decide.
    found = view.parsed(key, _to_envelope)
    return found if found is not None and found.dek_id == version.dek_id else None


def put_purge(view: View, path: str, gone: Sequence[int]) -> None:
    """Ask the duty to purge what was destroyed just now."""
    record = storage.PurgeRecord(path=path, versions=gone, at_ms=view.now_ms)
    view.put(purge_key(path, min(gone)), record.SerializeToString())


def purge_key(path: str, version: int) -> bytes:
    """The key of the request to purge what was destroyed together with `version`, the lowest of them."""
    return keyspace.KV_PURGES + path.encode() + b"\0%010d" % version


def tomb_key(path: str) -> bytes:
    """The key of the request to purge a whole secret."""
    return keyspace.KV_PURGES + path.encode() + b"\0" + _REMOVED


def purge_of(view: View, key: bytes) -> storage.PurgeRecord | None:
    """A request to purge; `None` when it is done."""
    return view.parsed(key, _to_purge)


def _to_head(keys: RecordKeys, key: bytes, value: bytes) -> storage.SecretHead | Unreadable:
    try:
        return storage.SecretHead.FromString(open_record(keys, key, value))
    except (Forged, DecodeError) as error:
        _log.error("a forged head is refused", key=key.decode("utf-8", "backslashreplace"), why=str(error))
        return Unreadable(str(error))


def _to_envelope(key: bytes, value: bytes) -> envelope_pb2.Envelope | None:
    try:
        return envelope_pb2.Envelope.FromString(value)
    except DecodeError:
        _log.error("an envelope cannot be read", key=key.decode("utf-8", "backslashreplace"))
        return None


def _to_purge(key: bytes, value: bytes) -> storage.PurgeRecord:
    del key
    return storage.PurgeRecord.FromString(value)
