"""What the tidy duty decides: expired tokens and the children of revoked ones are cleared away. Pure.

Each entry of the due index is settled in a transaction of its own, which compares the term's fence and the
entry itself:

    expire    the token is expired → revoke it (its leases and children follow); renewed → drop the entry
    children  each child of the revoked token → revoke it; when none is left, leave the marker its time
    marker    the marker has been there long enough → delete it
"""

from __future__ import annotations

from typing import Protocol

from services.auth.repository import (
    DROP_MARKER,
    EXPIRE,
    FIND_CHILDREN,
    MARKER_MS,
    Repository,
    digest_of_due,
    due_key,
)
from strongbox.store import keyspace
from strongbox.store.view import View

SLICE = 64  # entries of one pass, children of one go


class Fence(Protocol):
    """What a decision of the duty compares."""

    def require(self, view: View, /) -> None:
        """Make the decision depend on the term; raises when it is over."""


def read_due(view: View, fence: Fence, now_ms: int) -> None:
    """Fetch the keys that are due: all of the minutes that have passed, and those due at once."""
    fence.require(view)
    view.fetch(keyspace.TOKENS_DUE, due_key(now_ms, ""), limit=SLICE, keys_only=True)


def read_children(view: View, fence: Fence, accessor: str) -> None:
    """Fetch a slice of the children of a token that is gone."""
    fence.require(view)
    start = keyspace.child(accessor, "")
    view.fetch(start, keyspace.prefix_end(start), limit=SLICE)


def settle(view: View, fence: Fence, repository: Repository, key: bytes) -> str | None:
    """Do what an entry asks; returns the accessor of a revoked token whose children have to be found."""
    fence.require(view)
    digest = digest_of_due(key)
    asked = view.get(key).value
    if asked == EXPIRE:
        _expire(view, repository, digest, key)
    elif asked == DROP_MARKER:
        view.delete(keyspace.REVOKED + digest.encode())
        view.delete(key)
    elif asked == FIND_CHILDREN:
        marker = view.get(keyspace.REVOKED + digest.encode()).value
        if marker is not None:
            return marker.decode()
        view.delete(key)
    return None


def revoke_child(view: View, fence: Fence, repository: Repository, key: bytes) -> None:
    """Revoke the token that an entry of the index of children names."""
    fence.require(view)
    digest = (view.get(key).value or b"").decode()
    record = repository.lookup.token(view, digest) if digest else None
    if record is not None and keyspace.child(record.parent, record.accessor) == key:
        repository.revoke(view, digest, record)
    view.delete(key)


def leave_marker(view: View, fence: Fence, key: bytes) -> None:
    """No child is left: the marker stays its time."""
    fence.require(view)
    view.delete(key)
    view.put(due_key(view.now_ms + MARKER_MS, digest_of_due(key)), DROP_MARKER)


def _expire(view: View, repository: Repository, digest: str, key: bytes) -> None:
    record = repository.lookup.token(view, digest)
    view.delete(key)
    if record is not None and record.expires_ms and record.expires_ms <= view.now_ms:
        repository.revoke(view, digest, record)
    elif record is not None and record.expires_ms and due_key(record.expires_ms, digest) == key:
        view.put(key, EXPIRE)  # our clock runs ahead of the minute: not yet
