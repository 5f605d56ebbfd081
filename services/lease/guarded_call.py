"""What every handler does: authenticate, decide, audit and carry out in one transaction.

Some calls work outside etcd before or after that (PostgreSQL, seal). They first ask `allowed`, which changes
nothing and leaves no record; the decision with the effect then checks everything again, and is recorded once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from strongbox.access.guard import Caller, Guard
from strongbox.audit_outbox.outbox import draft_of
from strongbox.errors import Internal, NotInitialized, Sealed, StrongBoxError, Unauthenticated
from strongbox.rpc.request_context import Inbound
from strongbox.store.decisions.pipeline import Effect, Outcome, Pipeline, Work
from strongbox.store.decisions.view import View

T = TypeVar("T")
Decide = Callable[[View, Caller], T]
RESERVE = 0.8  # seconds of a request kept for what follows PostgreSQL


class Calls:
    """Over the pipeline and the guard."""

    def __init__(self, pipeline: Pipeline, guard: Guard) -> None:
        self.pipeline, self.guard = pipeline, guard

    async def act(self, inbound: Inbound, op: str, path: str, decide: Decide[T]) -> Outcome[T]:
        """Decide for the authenticated caller; `decide` asks for the capability. Recorded as `op`."""

        def guarded(view: View) -> T:
            return decide(view, self.guard.authenticate(view, inbound))

        return await self.pipeline.submit(Work(guarded, draft_of(inbound, op, path), inbound.deadline))

    async def allowed(self, inbound: Inbound, decide: Decide[T]) -> T | StrongBoxError:
        """What `decide` returns, or the error it refuses with; nothing is changed or recorded."""

        def guarded(view: View) -> T | StrongBoxError:
            try:
                return decide(view, self.guard.authenticate(view, inbound))
            except (Unauthenticated, Sealed, NotInitialized):
                raise  # there is no caller: neither recorded nor proved by a transaction
            except StrongBoxError as refusal:
                return refusal

        return (await self.pipeline.submit(Work(guarded, None, inbound.deadline))).value

    async def refuse(self, inbound: Inbound, op: str, path: str, error: StrongBoxError) -> StrongBoxError:
        """Record that an authenticated caller is refused with `error`; returns what to raise."""

        def decide(view: View, caller: Caller) -> None:
            del view, caller
            raise error

        try:
            await self.act(inbound, op, path, decide)
        except StrongBoxError as said:
            return said
        return Internal()

    async def after(self, inbound: Inbound, decide: Decide[T]) -> Outcome[T]:
        """A further step of a request that was recorded; the caller is authenticated again for it.

        `decide` itself records what it changes (`View.record`).
        """

        def guarded(view: View) -> T:
            return decide(view, self.guard.authenticate(view, inbound))

        return await self.pipeline.submit(Work(guarded, None, inbound.deadline))

    async def quietly(self, decide: Callable[[View], T], seconds: float) -> Outcome[T]:
        """A step without a caller: of work that was recorded, or of a duty."""
        return await self.pipeline.submit(
            Work(decide, None, time.monotonic() + seconds, effect=Effect.SAFETY)
        )
