"""The tidy duty: passes over what is due, a slice at a time, while this replica holds the office.

Nothing depends on it being prompt: an expired token and the child of a revoked one are refused by the guard
at once. What each entry asks for is decided in `due`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from services.auth import due
from services.auth.repository import Repository
from strongbox.clock import Clock
from strongbox.errors import StrongBoxError
from strongbox.store.election import Term
from strongbox.store.pipeline import Outcome, Pipeline, Work
from strongbox.store.view import View

T = TypeVar("T")
_log = structlog.get_logger(__name__)
PAUSE = 2.0  # seconds between passes that found less than a slice
DEADLINE = 5.0  # seconds for one transaction


class Tidy:
    """The duty, over the pipeline."""

    def __init__(self, pipeline: Pipeline, repository: Repository, clock: Clock) -> None:
        self._pipeline, self._repository, self._clock = pipeline, repository, clock

    async def work(self, term: Term) -> None:
        """Tidy until cancelled, when the term is over; work that is late is stopped by the fence."""
        while True:
            try:
                settled = await self.one_pass(term)
            except StrongBoxError as error:  # sealed, or no quorum: what is due stays due
                _log.info("tidying waits", reason=error.reason)
                settled = 0
            if settled < due.SLICE:
                await asyncio.sleep(PAUSE)

    async def one_pass(self, term: due.Fence) -> int:
        """Settle one slice; returns how many entries were due."""
        now_ms = self._clock.now_ms()
        rows = (await self._submit(lambda view: due.read_due(view, term, now_ms))).rows
        for row in rows:
            await self._settle(term, row.key)
        return len(rows)

    async def _settle(self, term: due.Fence, key: bytes) -> None:
        parent = (await self._submit(lambda view: due.settle(view, term, self._repository, key))).value
        if parent is None:
            return
        children = (await self._submit(lambda view: due.read_children(view, term, parent))).rows
        for row in children:
            await self._revoke_child(term, row.key)
        if len(children) < due.SLICE:
            await self._submit(lambda view: due.leave_marker(view, term, key))

    async def _revoke_child(self, term: due.Fence, key: bytes) -> None:
        await self._submit(lambda view: due.revoke_child(view, term, self._repository, key))

    async def _submit(self, decide: Callable[[View], T]) -> Outcome[T]:
        return await self._pipeline.submit(Work(decide, None, time.monotonic() + DEADLINE))
