"""Changes from events of secrets' heads: the version and the operation, nothing else of the head."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError

from strongbox.errors import InvalidInput
from strongbox.storage.v1 import auth_records_pb2
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd.watch import Event, Kind

RESYNC, REMOVED = "RESYNC", "REMOVED"
KINDS = {
    "WriteSecret": "WRITTEN",
    "DeleteSecretVersions": "DELETED",
    "UndeleteSecretVersions": "UNDELETED",
    "DestroySecretVersions": "DESTROYED",
    "UpdateSecretMetadata": "METADATA",
}


class Change(NamedTuple):
    """One change; `version` 0: the secret as a whole; `revision` is etcd's."""

    path: str
    version: int
    kind: str
    revision: int


def changes_of(event: Event) -> list[Change]:
    """The changes of one event: one for each version; none when the event is not an operation."""
    if event.kind is Kind.DELETE:
        path = event.key.removeprefix(keyspace.KV_HEADS).decode("utf-8", "replace")
        return [Change(path, 0, REMOVED, event.mod_revision)]
    try:
        # Its MAC is not checked: an event only says that something happened, as a deletion does without a
        # MAC, and a read that follows refuses a forged head.
        record = auth_records_pb2.AuthenticatedRecord.FromString(event.value)
        head = storage.SecretHead.FromString(record.body)
        path = event.key.removeprefix(keyspace.KV_HEADS).decode()
    except (DecodeError, UnicodeDecodeError):
        return []  # junk in etcd must not end a stream
    # Only in the revision that puts it does the newest operation have no revision written down yet.
    if not head.operations or head.operations[-1].revision:
        return []
    newest = head.operations[-1]
    kind = KINDS.get(newest.op, newest.op.upper())
    numbers = newest.versions or [head.current_version]
    return [Change(path, number, kind, event.mod_revision) for number in numbers]


def revision_of(text: str) -> int:
    """The revision to begin at; 0 when none is given. Raises `InvalidInput`."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:20]) < 1 << 63:
        raise InvalidInput("from_revision is a revision as an answer told it")
    return int(text)
