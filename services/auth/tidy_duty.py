"""The tidy duty: passes over what is due, some of each shard at a time, while this replica holds the duty.

* Nothing depends on it being prompt: an expired token and the child of a revoked one are refused by the
  guard at once. What entries ask for is decided in `tidy_decisions`.
* What is due is looked for by plain reads, 64 shards in each: etcd carries them out beside its writes, and
  holds its index for one shard at a time. They prove nothing: what they find is compared when it is settled.
* Between two transactions it rests as long as the last one took, at most `MOST_REST`, so that etcd and this
  replica's pipeline have time for requests however much is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import structlog

from services.auth import tidy_decisions
from services.auth.logins.secret_ids import SecretIds
from services.auth.repository import Repository
from strongbox.clock import Clock
from strongbox.errors import NoQuorum, Sealed, StrongBoxError, UnknownOutcome
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Effect, Outcome, Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, rows_of
from strongbox.store.etcd.errors import EtcdError

T = TypeVar("T")
_log = structlog.get_logger(__name__)
PAUSE = 2.0  # seconds between passes
DEADLINE = 5.0  # seconds for one transaction
MOST_REST = 0.1  # seconds between two transactions
TOGETHER = 64  # shards read at once


class Tidy:
    """The duty, over the pipeline."""

    def __init__(
        self, pipeline: Pipeline, repository: Repository, secret_ids: SecretIds, etcd: Etcd, clock: Clock
    ) -> None:
        self._pipeline, self._repository, self._secret_ids = pipeline, repository, secret_ids
        self._etcd, self._clock = etcd, clock
        self._in_haste = False

    async def work(self, term: tidy_decisions.Fence) -> None:
        """Tidy until cancelled at the end of the term; the fence stops work that is late."""
        while True:
            self._in_haste = False
            try:
                settled = await self.one_pass(term)
                term.progress()
            except StrongBoxError as error:  # sealed, or no quorum: what is due stays due
                _log.info("tidying waits", reason=error.reason)
                settled = 0
            except EtcdError as error:
                _log.info("tidying waits for etcd", why=str(error))
                settled = 0
            # What could not be settled is no reason for haste: it may fail again and again.
            if settled < tidy_decisions.SLICE and not self._in_haste:
                await asyncio.sleep(PAUSE)

    async def one_pass(self, term: tidy_decisions.Fence) -> int:
        """Settle some of each shard; returns how many entries were settled."""
        await self._submit(term.require)  # even when nothing is due: only etcd says whose term it is
        settled = 0
        for index in tidy_decisions.INDEXES:
            ranges = tidy_decisions.due_ranges(index, self._clock.now_ms())
            while some := list(islice(ranges, TOGETHER)):
                keys = await self._read(some)
                for chunk in _chunks(keys):
                    settled += await self._rested(self._settle_all(term, index, chunk))
                    term.progress()
        return settled

    async def _read(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        look = txn.txn([], [txn.range_(start, end, tidy_decisions.SLICE, True) for start, end in ranges])
        seen = await self._etcd.transact(look, deadline=time.monotonic() + DEADLINE, idempotent=True)
        return [row.key for part in seen.responses for row in rows_of(part.response_range)]

    async def _settle_all(self, term: tidy_decisions.Fence, index: bytes, keys: list[bytes]) -> int:
        """Settle entries together; if one of them makes that fail, each by itself. How many were settled."""
        try:
            await self._settle(term, index, keys)
        except (Sealed, NoQuorum, UnknownOutcome):
            raise
        except StrongBoxError:
            settled = 0
            for key in keys:
                try:
                    await self._settle(term, index, [key])
                    settled += 1
                except StrongBoxError as error:
                    _log.error(
                        "what is due cannot be tidied", key=key.decode("ascii", "replace"), why=error.reason
                    )
            return settled
        return len(keys)

    async def _settle(self, term: tidy_decisions.Fence, index: bytes, keys: list[bytes]) -> None:
        if index == keyspace.SECRET_IDS_DUE:
            await self._submit(
                lambda view: tidy_decisions.settle_secret_ids(view, term, self._secret_ids, keys)
            )
            return
        done = await self._submit(lambda view: tidy_decisions.settle(view, term, self._repository, keys))
        for bereaved in done.value:
            await self._find_children(term, bereaved)

    async def _find_children(self, term: tidy_decisions.Fence, parent: tidy_decisions.Bereaved) -> None:
        while True:
            rows = (
                await self._submit(lambda view: tidy_decisions.read_children(view, term, parent.accessor))
            ).rows
            if rows:
                await self._rested(self._revoke_children(term, [row.key for row in rows]))
                # Their own children are found by the next pass, and keep their leases until then: so it
                # begins at once.
                self._in_haste = True
            if len(rows) < tidy_decisions.SLICE:
                break
        await self._submit(lambda view: tidy_decisions.leave_marker(view, term, parent.key))

    async def _revoke_children(self, term: tidy_decisions.Fence, keys: list[bytes]) -> None:
        await self._submit(lambda view: tidy_decisions.revoke_children(view, term, self._repository, keys))

    async def _rested(self, work: Coroutine[Any, Any, T]) -> T:
        started = time.monotonic()
        done = await work
        await asyncio.sleep(min(MOST_REST, time.monotonic() - started))
        return done

    async def _submit(self, decide: Callable[[View], T]) -> Outcome[T]:
        return await self._pipeline.submit(
            Work(decide, None, time.monotonic() + DEADLINE, effect=Effect.FREES)
        )


def _chunks(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), tidy_decisions.TOGETHER):
        yield keys[start : start + tidy_decisions.TOGETHER]
