"""Many secrets in one call: each has its own permission, its own audit record, and its own refusal.

Rules:
* 1 to 256 secrets. What is wrong with one of them (its path, no permission, not there) is told in its place;
  what is wrong with the caller or the cluster (no token, sealed, no quorum) refuses the call.
* Each is a read of its own to the pipeline, which makes one batch of them: usually one transaction.
* The answer names one etcd revision at which every secret that is told stood as it is told. Reads that fell
  into several transactions are proved to, by one that compares all heads; those that changed are read again.
  What is wrong with one secret is told as it was when that one was looked at.
* Values are opened in the order of the requests until they come to 1 MiB; the rest is `TOO_LARGE`, to be
  asked for again. Their reads are audited all the same: what is recorded may not have been told, never the
  reverse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from services.kv.reading import Reading, Taken
from strongbox.access.guard import Guard
from strongbox.errors import (
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    StrongBoxError,
    TooLarge,
)
from strongbox.paths import SecretPath
from strongbox.rpc.inbound import Inbound
from strongbox.store import keyspace
from strongbox.store.pipeline import Pipeline, Work
from strongbox.store.view import View

MOST = 256  # secrets
MOST_BYTES = 1 << 20  # of all values together
ROUNDS = 4  # of reading again what has changed meanwhile
OP = "BatchReadSecrets"
_OF_ONE = (InvalidInput, PermissionDenied, NotFound, Internal)

Result = Taken | StrongBoxError


class Item(NamedTuple):
    """One secret asked for; `path` is an error when what was asked is none."""

    path: SecretPath | StrongBoxError
    number: int | None


class Batch:
    """Reads many."""

    def __init__(self, pipeline: Pipeline, guard: Guard, reading: Reading) -> None:
        self._pipeline, self._guard, self._reading = pipeline, guard, reading

    async def read(self, inbound: Inbound, items: Sequence[Item]) -> tuple[int, list[Result]]:
        """The revision, and a result for each item. Raises as the module says."""
        results: dict[int, Result] = {}
        wanted = list(range(len(items)))
        for _ in range(ROUNDS):
            read = await asyncio.gather(*(self._one(inbound, items[index]) for index in wanted))
            results.update(zip(wanted, read, strict=True))
            revision, wanted = await self._prove(inbound, results)
            if not wanted:
                return revision, [results[index] for index in range(len(items))]
        raise Overloaded("these secrets change faster than they can be read together; ask for fewer")

    async def _one(self, inbound: Inbound, item: Item) -> Result:
        if isinstance(item.path, StrongBoxError):
            return item.path
        try:
            return await self._reading.take(inbound, OP, item.path, item.number)
        except _OF_ONE as refusal:
            return refusal

    async def _prove(self, inbound: Inbound, results: dict[int, Result]) -> tuple[int, list[int]]:
        """One revision at which all stood that were read, and which of them stand no more."""
        taken = {index: one for index, one in results.items() if isinstance(one, Taken)}
        revisions = {one.revision for one in taken.values()}
        if len(revisions) == 1:
            return revisions.pop(), []
        keys = {index: keyspace.head(one.path.text) for index, one in taken.items()}

        def changed(view: View) -> list[int]:
            self._guard.authenticate(view, inbound)
            view.prefetch(*keys.values())
            return [index for index, one in taken.items() if view.get(keys[index]).mod_revision != one.head]

        done = await self._pipeline.submit(Work(changed, None, inbound.deadline))
        return done.revision, done.value


def within_limit(results: Sequence[Result]) -> list[Result]:
    """The same, those left out that go beyond `MOST_BYTES` together."""
    room, kept = MOST_BYTES, list[Result]()
    for one in results:
        if not isinstance(one, Taken):
            kept.append(one)
            continue
        room -= one.size
        kept.append(one if room >= 0 else TooLarge("the values of one call come to 1 MiB at most"))
    return kept
