"""The terms duty: upkeep of key terms without a request. One replica at a time, under its fence.

* A term that was staged and not put in use (the rotating process died) is put in use.
* A new term is begun when the wraps of the one in use run low, long before 2^31.
* Terms that nothing uses any more are retired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from services.seal.custody.held_keys import Custody
from services.seal.key_terms import term_decisions
from services.seal.key_terms.keyring_refresh import Refresher
from services.seal.key_terms.rotate import STAGED_FOR
from services.seal.key_terms.term_decisions import FreshTerm, Terms
from services.seal.key_terms.wrap_counter import RETIRE_AT
from strongbox.errors import StrongBoxError
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Outcome, Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.duties.election import Term

T = TypeVar("T")
PAUSE = 1.0  # seconds
_WITHIN = 2.0  # seconds for one transaction
_PATH = "sys/rotate"
_log = structlog.get_logger(__name__)


def read(view: View, term: Term) -> tuple[Terms, int]:
    """The terms, and the wraps reserved under the one in use."""
    term.require(view)
    found = term_decisions.read(view)
    return found, int(view.get(keyspace.wraps(found.current)).value or b"0")


class Upkeep:
    """The duty, over the pipeline."""

    def __init__(self, pipeline: Pipeline, custody: Custody, refresher: Refresher) -> None:
        self._pipeline, self._custody, self._refresher = pipeline, custody, refresher
        self._staged_at: tuple[int, float] = (0, 0.0)

    async def work(self, term: Term) -> None:
        """Look after the key terms until cancelled, when this replica no longer holds the duty."""
        while True:
            try:
                await self.one_pass(term)
                term.progress()
            except StrongBoxError as error:  # sealed, or no quorum
                _log.debug("the terms wait", reason=error.reason)
                if self._custody.generation is None:
                    # Another replica may hold keys: give the duty up, so that it can take it.
                    await asyncio.sleep(5 * PAUSE)
                    return
            await asyncio.sleep(PAUSE)

    async def one_pass(self, term: Term) -> None:
        """Do what is due."""
        self._custody.keyring()  # raises Sealed, NoQuorum
        known, reserved = (await self._submit(lambda view: read(view, term))).value
        if known.current != self._custody.keyring().term:
            await self._refresher.look()
        if known.staged:
            await self._activate(term, known.staged)
        elif reserved >= RETIRE_AT:
            _log.warning("the key term has few wraps left: a new one begins", term=known.current)
            await self._stage(term)
        elif len(known.all) > 1:
            await self._retire(term)

    async def _activate(self, term: Term, staged: int) -> None:
        now = time.monotonic()
        if self._staged_at[0] != staged:
            self._staged_at = staged, now
        if now - self._staged_at[1] < STAGED_FOR:
            return

        def decide(view: View) -> Terms:
            term.require(view)
            return term_decisions.activate(view, staged)

        await self._submit(decide, "UseKeyTerm")
        await self._refresher.look()

    async def _stage(self, term: Term) -> None:
        fresh = FreshTerm(self._custody)

        def decide(view: View) -> int:
            term.require(view)
            return term_decisions.stage(view, fresh)

        await self._submit(decide, "RotateKeys")

    async def _retire(self, term: Term) -> None:
        def decide(view: View) -> tuple[int, ...]:
            term.require(view)
            return term_decisions.retire(view)

        gone = (await self._submit(decide)).value
        if gone:
            _log.info("key terms are retired", terms=gone)
            await self._refresher.look()

    async def _submit(self, decide: Callable[[View], T], op: str = "") -> Outcome[T]:
        draft = Draft(op=op, path=_PATH, request_id="", client="") if op else None
        return await self._pipeline.submit(Work(decide, draft, time.monotonic() + _WITHIN, always=True))
