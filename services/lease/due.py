"""What the lease duties decide: the expired are revoked, the long revoked go, and revoked tokens lose theirs.

Each entry of the due index is settled in a transaction of its own, which compares the term's fence and the
lease itself:

    active, expired          → revoked; due again in 24 h
    revoked 24 h ago         → deleted with all that leads to it
    gone, or due elsewhere   → the entry is dropped

A read lease needs nothing undone outside etcd, so it goes from EXPIRED to REVOKED in one step. Pure.
"""

from __future__ import annotations

from typing import Protocol

from strongbox.crypto.record_keys import RecordKeys
from strongbox.leases import read_lease
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.view import View

SLICE = 64  # entries of one go


class Fence(Protocol):
    """What a decision of a duty compares (strongbox.store.election.Term)."""

    def require(self, view: View, /) -> None:
        """Make the decision depend on the term; raises when it is over."""


def read_due(view: View, fence: Fence, now_ms: int) -> None:
    """Fetch a slice of what is due: of all the buckets that have passed."""
    fence.require(view)
    view.fetch(keyspace.LEASES_DUE, read_lease.due_bucket(now_ms), limit=SLICE, keys_only=True)


def settle(view: View, fence: Fence, keys: RecordKeys, key: bytes) -> None:
    """Do what an entry of the due index asks."""
    fence.require(view)
    record = read_lease.find(view, keys, read_lease.name_in(key))
    if record is None or read_lease.due_key(record) != key:
        view.delete(key)
    elif read_lease.due_ms(record) <= view.now_ms:
        if record.revoked_ms:
            read_lease.drop(view, record)
        else:
            read_lease.revoke(view, keys, record)


def read_markers(view: View, fence: Fence, after: bytes) -> None:
    """Fetch a slice of the markers of revoked tokens, those behind the key `after`."""
    fence.require(view)
    start = after + b"\0" if after else keyspace.REVOKED
    view.fetch(start, keyspace.prefix_end(keyspace.REVOKED), limit=SLICE)


def read_held(view: View, fence: Fence, accessor: str, after: bytes) -> None:
    """Fetch a slice of the index of what a token holds, behind the key `after`."""
    fence.require(view)
    prefix = read_lease.by_accessor_key(accessor, "")
    start = after + b"\0" if after else prefix
    view.fetch(start, keyspace.prefix_end(prefix), limit=SLICE, keys_only=True)


def revoke_held(view: View, fence: Fence, keys: RecordKeys, key: bytes) -> None:
    """Revoke the lease that an entry of that index names; the record says whose it is."""
    fence.require(view)
    record = read_lease.find(view, keys, read_lease.name_in(key))
    if record is None or read_lease.by_accessor_key(record.accessor, record.id) != key:
        view.delete(key)
    else:
        read_lease.revoke(view, keys, record)


def followed(view: View, fence: Fence) -> int:
    """The etcd revision up to which the markers were followed."""
    fence.require(view)
    value = view.get(keyspace.LEASES_FOLLOWED).value
    return storage.MarkerCursor.FromString(value).revision if value else 0


def follow_to(view: View, fence: Fence, revision: int) -> None:
    """Write down that the markers were followed up to `revision`; never back."""
    if followed(view, fence) < revision:
        view.put(keyspace.LEASES_FOLLOWED, storage.MarkerCursor(revision=revision).SerializeToString())
