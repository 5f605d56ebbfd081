"""What the tidy duty decides: expired tokens and the children of revoked ones are cleared away. Pure.

Entries are settled together, some 100 in a transaction, which compares the term's fence, the entries and the
records they are about:

    expire    the token is expired → drop it with all that leads to it; renewed → drop the entry
    children  each child of the revoked token → revoke it; when none is left, set when the marker goes
    marker    the marker has been there long enough → delete it

An expired token leaves no marker and its children are not looked for: no lease and no child outlives it,
since neither is ever given, or renewed, beyond the expiry of the token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from services.auth.logins.secret_ids import SecretIds
from services.auth.repository import (
    DROP_MARKER,
    EXPIRE,
    FIND_CHILDREN,
    MARKER_MS,
    Repository,
    digest_of_due,
    due_key,
    due_until,
)
from strongbox.lease_records.counters import Tally
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

SLICE = 64  # entries of one shard, or children of one token, read at a time
TOGETHER = 100  # entries settled by one transaction: some 600 operations
SHARDS = tuple(f"{number:02x}" for number in range(256))
INDEXES = (keyspace.TOKENS_DUE, keyspace.SECRET_IDS_DUE)


class Fence(Protocol):
    """What a decision of the duty compares."""

    def require(self, view: View, /) -> None:
        """Make the decision depend on the term; raises when it is over."""

    def progress(self) -> None:
        """A pass was done, or a part of a long one."""


class Bereaved(NamedTuple):
    """A token that is gone, whose children have to be found: the due entry's key, and the accessor."""

    key: bytes
    accessor: str


def due_ranges(index: bytes, now_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """For each shard the range `[start, end)` of keys that are due.

    That is every minute that has passed, minute 0 (due at once) included.
    """
    for shard in SHARDS:
        yield index + f"{shard}/".encode(), due_until(index, shard, now_ms)


def read_children(view: View, fence: Fence, accessor: str) -> None:
    """Fetch a slice of the children of a token that is gone."""
    fence.require(view)
    start = keyspace.child(accessor, "")
    view.fetch(start, keyspace.prefix_end(start), limit=SLICE)


def settle(view: View, fence: Fence, repository: Repository, keys: Sequence[bytes]) -> list[Bereaved]:
    """Settle entries of the tokens' index; returns the tokens whose children have to be found."""
    fence.require(view)
    # In one round trip: the entries, and the tokens that most of them are about.
    view.prefetch(*keys, *(keyspace.token(digest_of_due(key)) for key in keys))
    tally = Tally()
    found = [_settle(view, repository, key, tally) for key in keys]
    tally.settle(view)
    return [bereaved for bereaved in found if bereaved is not None]


def settle_secret_ids(view: View, fence: Fence, secret_ids: SecretIds, keys: Sequence[bytes]) -> None:
    """Clear away the secret ids that entries of their index name."""
    fence.require(view)
    view.prefetch(*(keyspace.SECRET_IDS + digest_of_due(key).encode() for key in keys))
    tally = Tally()
    for key in keys:
        secret_ids.expire(view, key, tally)
    tally.settle(view)


def revoke_children(view: View, fence: Fence, repository: Repository, keys: Sequence[bytes]) -> None:
    """Revoke the tokens that entries of the index of children name."""
    fence.require(view)
    view.prefetch(*keys)
    digests = {key: (view.get(key).value or b"").decode("ascii", "replace") for key in keys}
    view.prefetch(*(keyspace.token(digest) for digest in digests.values() if digest))
    tally = Tally()
    for key, digest in digests.items():
        _revoke_child(view, repository, key, digest, tally)
    tally.settle(view)


def _revoke_child(view: View, repository: Repository, key: bytes, digest: str, tally: Tally) -> None:
    record = repository.lookup.token(view, digest) if digest else None
    if record is not None and keyspace.child(record.parent, record.accessor) == key:
        repository.revoke(view, digest, record, tally)
    view.delete(key)


def leave_marker(view: View, fence: Fence, key: bytes) -> None:
    """No child is left: have the marker deleted after `MARKER_MS`."""
    fence.require(view)
    view.delete(key)
    view.put(due_key(view.now_ms + MARKER_MS, digest_of_due(key)), DROP_MARKER)


def _settle(view: View, repository: Repository, key: bytes, tally: Tally) -> Bereaved | None:
    digest = digest_of_due(key)
    asked = view.get(key).value
    if asked == EXPIRE:
        _expire(view, repository, digest, key, tally)
    elif asked == DROP_MARKER:
        view.delete(keyspace.REVOKED + digest.encode())
        view.delete(key)
    elif asked == FIND_CHILDREN:
        marker = view.get(keyspace.REVOKED + digest.encode()).value
        if marker is not None:
            return Bereaved(key, marker.decode())
        view.delete(key)
    else:  # gone, or nothing of ours
        view.delete(key)
    return None


def _expire(view: View, repository: Repository, digest: str, key: bytes, tally: Tally) -> None:
    record = repository.lookup.token(view, digest)
    if record is None or not record.expires_ms or due_key(record.expires_ms, digest) != key:
        view.delete(key)
    elif record.expires_ms <= view.now_ms:
        repository.drop_token(view, digest, record, tally)
    # Otherwise this process's clock is ahead of the cluster's time: not due yet.
