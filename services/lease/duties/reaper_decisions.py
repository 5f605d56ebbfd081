"""What the lease duties decide: which leases end, are deleted a day later, or end with their token.

Entries of the due index are settled in groups, each in one transaction, which compares the term's fence and
the leases themselves:

    read lease, expired      → deleted with its index entries
    revoked 24 h ago         → likewise
    gone, or due elsewhere   → the entry is dropped
    credential that is due   → its role has to be dropped first (`revoke`)

A read lease needs nothing undone outside etcd, and the audit chain has its reads: it goes in one step. Only
what somebody revoked stays readable for a day. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.lease import credential_lease, repository
from services.lease.leases import lease_decisions
from services.lease.leases.revoke import Fence
from strongbox.crypto.record_keys import RecordKeys
from strongbox.lease_records import index, read_lease
from strongbox.lease_records.counters import Tally
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

SLICE = 512  # entries of one read
GROUP = 32  # entries that are settled in one transaction


def cluster_ms(view: View, fence: Fence) -> int:
    """The cluster's time in milliseconds since the epoch."""
    fence.require(view)
    return int(view.get(keyspace.CLUSTER_TIME).value or b"0")


def read_due(view: View, fence: Fence, now_ms: int, after: bytes = b"") -> None:
    """Fetch a slice of the entries that are due, after the entry `after`, of all buckets that have passed."""
    fence.require(view)
    start = after + b"\0" if after else keyspace.LEASES_DUE
    view.fetch(start, index.due_bucket(now_ms), limit=SLICE, keys_only=True)


def settle(view: View, fence: Fence, keys: RecordKeys, entries: Sequence[bytes]) -> list[str]:
    """Settle entries of the due index; returns the ids of credentials whose role has to be dropped first."""
    fence.require(view)
    tally, left = Tally(), []
    names = [index.name_in(key) for key in entries]
    view.prefetch(*(keyspace.read_lease(name) for name in names if read_lease.is_lease_id(name)))
    view.prefetch(*(keyspace.grant(name) for name in names if credential_lease.is_grant_id(name)))
    for key, name in zip(entries, names, strict=True):
        record = lease_decisions.find(view, keys, name)
        if record is None or _due_key(record) != key:
            view.delete(key)
        elif isinstance(record, credential_lease.Record):
            if record.state != credential_lease.REVOKED:
                left.append(name)
            elif credential_lease.due_ms(record) <= view.now_ms:
                repository.drop_grant(view, record, tally)
        elif read_lease.due_ms(record) <= view.now_ms:
            read_lease.drop(view, record, tally)
    tally.settle(view)
    return left


def _due_key(record: lease_decisions.Record) -> bytes:
    if isinstance(record, credential_lease.Record):
        return index.due_key(credential_lease.due_ms(record), record.id)
    return read_lease.due_key(record)


def read_markers(view: View, fence: Fence, after: bytes) -> None:
    """Fetch a slice of the markers of revoked tokens, those behind the key `after`."""
    fence.require(view)
    start = after + b"\0" if after else keyspace.REVOKED
    view.fetch(start, keyspace.prefix_end(keyspace.REVOKED), limit=SLICE)


def read_held(view: View, fence: Fence, accessor: str, after: bytes) -> None:
    """Fetch a slice of the index of what a token holds, behind the key `after`."""
    fence.require(view)
    prefix = index.by_accessor_key(accessor, "")
    start = after + b"\0" if after else prefix
    view.fetch(start, keyspace.prefix_end(prefix), limit=SLICE, keys_only=True)


def end_held(view: View, fence: Fence, keys: RecordKeys, entries: Sequence[bytes]) -> None:
    """End the leases that entries of that index name, if their records confirm whose they are."""
    fence.require(view)
    tally = Tally()
    names = [index.name_in(key) for key in entries]
    view.prefetch(*(keyspace.read_lease(name) for name in names if read_lease.is_lease_id(name)))
    view.prefetch(*(keyspace.grant(name) for name in names if credential_lease.is_grant_id(name)))
    for key, name in zip(entries, names, strict=True):
        record = lease_decisions.find(view, keys, name)
        if record is None or index.by_accessor_key(record.accessor, record.id) != key:
            view.delete(key)
        else:
            lease_decisions.end(view, keys, record, tally)
    tally.settle(view)


def followed(view: View, fence: Fence) -> int:
    """The etcd revision up to which the markers were followed."""
    fence.require(view)
    value = view.get(keyspace.LEASES_FOLLOWED).value
    return storage.MarkerCursor.FromString(value).revision if value else 0


def follow_to(view: View, fence: Fence, revision: int) -> None:
    """Record that the markers were followed up to `revision`; never goes back."""
    if followed(view, fence) < revision:
        view.put(keyspace.LEASES_FOLLOWED, storage.MarkerCursor(revision=revision).SerializeToString())
