"""Rotating, and the status of key terms: the work around the decisions of `term_decisions`.

A rotation stages a term, waits until every service has had time to hear of it (each asks twice a second),
puts it in use, and then answers. If the process dies in between, a staged term is left: the duty
(`terms_duty`) puts it in use a moment later, and a rotation asked for meanwhile goes on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from services.seal.custody.held_keys import Custody
from services.seal.key_terms import term_decisions
from services.seal.key_terms.keyring_refresh import Refresher
from services.seal.key_terms.term_decisions import FreshTerm, Terms
from services.seal.key_terms.wrap_counter import used
from strongbox.access.guard import Guard
from strongbox.audit_outbox.outbox import draft_of
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Outcome, Pipeline, Work
from strongbox.store.decisions.view import Row, View

ROTATE = "sys/rotate"
STATUS = "sys/key-status"
STAGED_FOR = 1.5  # seconds: services ask for the record keys twice a second
# Single keys as ranges of one key: of other services' keys etcd's role lets seal read only these.
_FETCHED = (
    (keyspace.SEAL_WRAPS, keyspace.prefix_end(keyspace.SEAL_WRAPS)),
    *((key, key + b"\0") for key in keyspace.REWRAPS.values()),
)


class KeyStatus(NamedTuple):
    """The answer of key-status; `wraps`, `done`, `total`, `passed_over` are counts."""

    terms: Terms
    wraps: int
    done: int
    total: int
    passed_over: int


class Rotation:
    """Rotates for a caller, and puts staged terms in use."""

    def __init__(self, pipeline: Pipeline, guard: Guard, custody: Custody, refresher: Refresher) -> None:
        self._pipeline, self._guard = pipeline, guard
        self._custody, self._refresher = custody, refresher

    async def rotate(self, inbound: Inbound) -> KeyStatus:
        """Put a new term in use. Raises what the guard raises, NoQuorum, UnknownOutcome."""
        term = await self._stage(inbound)
        await asyncio.sleep(STAGED_FOR)
        await self.activate(term, inbound.deadline)

        def decide(view: View) -> Terms:
            self._guard.require(view, inbound, "sudo", ROTATE)
            return _look(view)

        return _status(await self._pipeline.submit(Work(decide, None, inbound.deadline)))

    async def status(self, inbound: Inbound) -> KeyStatus:
        """The terms, the wraps under the one in use, how far rewrapping is. Raises what the guard raises."""

        def decide(view: View) -> Terms:
            self._guard.require(view, inbound, "sudo", STATUS)
            return _look(view)

        work = Work(decide, draft_of(inbound, "GetKeyStatus", STATUS), inbound.deadline)
        return _status(await self._pipeline.submit(work))

    async def activate(self, term: int, deadline: float) -> None:
        """Put a staged term in use."""
        draft = Draft(op="UseKeyTerm", path=ROTATE, request_id="", client="")
        work = Work(lambda view: term_decisions.activate(view, term), draft, deadline, always=True)
        await self._pipeline.submit(work)
        await self._refresher.look()

    async def _stage(self, inbound: Inbound) -> int:
        fresh = FreshTerm(self._custody)

        def decide(view: View) -> int:
            self._guard.require(view, inbound, "sudo", ROTATE)
            return term_decisions.stage(view, fresh)

        draft = draft_of(inbound, "RotateKeys", ROTATE)
        work = Work(decide, draft, inbound.deadline - STAGED_FOR, always=True)
        return (await self._pipeline.submit(work)).value


def _look(view: View) -> Terms:
    for start, end in _FETCHED:
        view.fetch(start, end)
    return term_decisions.read(view)


def _status(found: Outcome[Terms]) -> KeyStatus:
    progress = progress_in(found.rows)
    done, total = term_decisions.rewrapped(progress, found.value.current)
    over = term_decisions.passed_over(progress, found.value.current)
    return KeyStatus(found.value, used(_pairs(found.rows), found.value.current), done, total, over)


def progress_in(rows: Sequence[Row]) -> list[storage.RewrapProgress]:
    """How far each service's rewrapping is; one that has written nothing is at the beginning."""
    told = dict(_pairs(rows))
    return [term_decisions.parse_progress(told.get(key)) for key in keyspace.REWRAPS.values()]


def _pairs(rows: Iterable[Row]) -> list[tuple[bytes, bytes]]:
    return [(row.key, row.value) for row in rows]
