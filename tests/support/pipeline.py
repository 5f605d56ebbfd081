"""The pipeline over a `FakeStore`: decides once, carries out at once, keeps the audit records.

`before` is called between the decision and the transaction, as if another replica were faster: when it
changed what the decision read, the request is decided again. `after` is called when the transaction has
landed, before its caller hears of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from strongbox import unsealed_proof
from strongbox.errors import StrongBoxError
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.view import Row, View
from strongbox.store.decisions.work import Outcome, Work
from tests.support.fakes import FakeStore

T = TypeVar("T")


class FakePipeline:
    """As strongbox.store.decisions.pipeline.Pipeline."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.audited: list[Draft] = []
        self.writes = 0
        self.before: Callable[[], None] | None = None
        self.after: Callable[[], None] | None = None

    def require_room(self) -> None:
        """There always is."""

    async def submit(self, work: Work[T]) -> Outcome[T]:
        while True:
            draft = replace(work.draft) if work.draft is not None else None
            view = self.store.view(draft)
            try:
                value = work.decide(view)
            except StrongBoxError as refusal:
                if draft is not None and draft.accessor:
                    self._audit(draft, "refused", refusal.reason)
                raise
            finally:
                view.close()
            if work.on_decided is not None:
                work.on_decided(value)
            asked = time.monotonic()
            if self._holds(view):
                outcome = self._carry_out(view, value, view.draft)
                if view.proves_unsealed:
                    unsealed_proof.note(asked)
                if self.after is not None:
                    self.after()
                return outcome

    def _holds(self, view: View) -> bool:
        hurry, self.before = self.before, None
        if hurry is not None:
            hurry()
        reads = view.footprint.reads.items()
        return all(self.store.view().get(key).mod_revision == revision for key, revision in reads)

    def _carry_out(self, view: View, value: T, draft: Draft | None) -> Outcome[T]:
        def apply(fresh: View) -> None:
            fresh.footprint = view.footprint

        done = self.store.run(cast("Callable[[View], Any]", apply))
        self.writes += bool(view.footprint.puts or view.footprint.deletes)
        for one in ([] if draft is None else [draft]) + view.others:
            self._audit(one, "ok", "")
        rows = tuple(Row(*row) for row in done.rows)
        return Outcome(view.told(value, rows), done.revision, rows)

    def _audit(self, draft: Draft, outcome: str, reason: str) -> None:
        draft.ts_ms = self.store.now_ms
        if not draft.outcome:
            draft.outcome, draft.reason = outcome, reason
        self.audited.append(draft)
