"""The tidy duty: expired tokens and the children of revoked ones are cleared away, slice by slice.

Nothing depends on it being prompt: an expired token and the child of a revoked one are refused by the guard
at once. Each pass reads what is due (at most `SLICE` entries, in order of time) and settles each entry in a
transaction of its own that compares the term's fence and the entry itself:

    expire    the token is expired → revoke it (its leases and children follow); renewed meanwhile → drop the entry
    children  each child of the revoked token → revoke it; when none is left, leave the marker its time
    marker    the marker has been there long enough → delete it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from strongbox.clock import Clock

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
from strongbox.store.election import Term
from strongbox.store.pipeline import Outcome, Pipeline, Work
from strongbox.store.view import View

T = TypeVar("T")
SLICE = 64  # entries of one pass
PAUSE = 2.0  # seconds between passes that found less than a slice
DEADLINE = 5.0  # seconds for one transaction


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


class Tidy:
    """The duty, over the pipeline."""

    def __init__(self, pipeline: Pipeline, repository: Repository, clock: Clock) -> None:
        self._pipeline, self._repository, self._clock = pipeline, repository, clock

    async def work(self, term: Term) -> None:
        """Tidy until the term is over; the fence raises `Deposed`."""
        while True:
            if await self.one_pass(term) < SLICE:
                await asyncio.sleep(PAUSE)

    async def one_pass(self, term: Fence) -> int:
        """Settle one slice; returns how many entries were due."""
        now_ms = self._clock.now_ms()
        due = await self._submit(lambda view: read_due(view, term, now_ms))
        for row in due.rows:
            await self._settle(term, row.key)
        return len(due.rows)

    async def _settle(self, term: Fence, key: bytes) -> None:
        parent = (await self._submit(lambda view: settle(view, term, self._repository, key))).value
        if parent is None:
            return
        children = (await self._submit(lambda view: read_children(view, term, parent))).rows
        for row in children:
            await self._revoke_child(term, row.key)
        if len(children) < SLICE:
            await self._submit(lambda view: leave_marker(view, term, key))

    async def _revoke_child(self, term: Fence, key: bytes) -> None:
        await self._submit(lambda view: revoke_child(view, term, self._repository, key))

    async def _submit(self, decide: Callable[[View], T]) -> Outcome[T]:
        return await self._pipeline.submit(Work(decide, None, time.monotonic() + DEADLINE))
