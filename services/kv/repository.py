r"""Where secrets stand in etcd, and how they get there. All through a view.

    kv/head/<path>                   SecretHead: metadata, the newest version's envelope, the last operations
    kv/old/<path>\0<version>         the Envelope of each older version
    kv/purge/<path>\0<version>       PurgeRecord: destroyed together; named by the lowest of their versions
    kv/purge/<path>\0removed         PurgeRecord: the whole secret was removed; keeps its last operations, so
                                     that a repeated request finds them, until the duty has purged

Removing or replacing an envelope is one transaction with the head that says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.kv import versions
from services.kv.idempotency import Operation, remembered
from strongbox.storage.v1 import envelope_pb2
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.view import View

_REMOVED = b"removed"


def head(view: View, path: str) -> storage.SecretHead | None:
    """A secret's head, not to be changed; `None` when there is no secret."""
    return view.parsed(keyspace.head(path), _to_head)


def envelope(view: View, path: str, found: storage.SecretHead, version: int) -> envelope_pb2.Envelope | None:
    """The envelope of a kept version; `None` when it is not there."""
    if version == found.current_version:
        return found.envelope if found.HasField("envelope") else None
    return view.parsed(keyspace.old_version(path, version), _to_envelope)


def operations(view: View, path: str) -> tuple[Sequence[Operation], int]:
    """The last operations of a secret, there or just removed, and the revision of the last change."""
    found = head(view, path)
    if found is not None:
        return found.operations, view.get(keyspace.head(path)).mod_revision
    tomb = view.parsed(tomb_key(path), _to_purge)
    return (tomb.operations, view.get(tomb_key(path)).mod_revision) if tomb is not None else ((), 0)


def put_new_version(
    view: View,
    path: str,
    before: storage.SecretHead | None,
    change: versions.Change,
    sealed: envelope_pb2.Envelope,
    operation: Operation,
) -> None:
    """Put a new version; the one that was newest moves to a key of its own, if it is kept."""
    if before is not None and before.HasField("envelope") and before.current_version not in change.gone:
        old = keyspace.old_version(path, before.current_version)
        view.put(old, before.envelope.SerializeToString())
    change.head.envelope.CopyFrom(sealed)
    put_change(view, path, before, change, operation)


def put_change(
    view: View,
    path: str,
    before: storage.SecretHead | None,
    change: versions.Change,
    operation: Operation | None = None,
) -> None:
    """Put the head as it is to be, and take away the envelopes that go."""
    known, revision = operations(view, path)
    after = change.head
    del after.operations[:]
    after.operations.extend(remembered(known, operation, revision))
    current = before.current_version if before is not None else 0
    for version in change.gone:
        if version == current == after.current_version:
            after.ClearField("envelope")
        elif version != current:
            view.delete(keyspace.old_version(path, version))
    view.put(keyspace.head(path), after.SerializeToString(deterministic=True))


def put_purge(view: View, path: str, gone: Sequence[int]) -> None:
    """Ask the duty to purge what was destroyed just now."""
    record = storage.PurgeRecord(path=path, versions=gone, at_ms=view.now_ms)
    view.put(purge_key(path, min(gone)), record.SerializeToString())


def remove(view: View, path: str, found: storage.SecretHead, operation: Operation) -> None:
    """Take the whole secret away, and ask the duty to purge it."""
    known, revision = operations(view, path)
    for version in versions.stored(found):
        if version != found.current_version:
            view.delete(keyspace.old_version(path, version))
    view.delete(keyspace.head(path))
    tomb = storage.PurgeRecord(
        path=path,
        versions=versions.stored(found),
        at_ms=view.now_ms,
        operations=remembered(known, operation, revision),
    )
    view.put(tomb_key(path), tomb.SerializeToString(deterministic=True))


def purge_key(path: str, version: int) -> bytes:
    """The request to purge what was destroyed together with `version`, the lowest of them."""
    return keyspace.KV_PURGES + path.encode() + b"\0%010d" % version


def tomb_key(path: str) -> bytes:
    """The request to purge a whole secret."""
    return keyspace.KV_PURGES + path.encode() + b"\0" + _REMOVED


def purge_of(view: View, key: bytes) -> storage.PurgeRecord | None:
    """A request to purge; `None` when it is done."""
    return view.parsed(key, _to_purge)


def _to_head(key: bytes, value: bytes) -> storage.SecretHead:
    del key
    return storage.SecretHead.FromString(value)


def _to_envelope(key: bytes, value: bytes) -> envelope_pb2.Envelope:
    del key
    return envelope_pb2.Envelope.FromString(value)


def _to_purge(key: bytes, value: bytes) -> storage.PurgeRecord:
    del key
    return storage.PurgeRecord.FromString(value)
