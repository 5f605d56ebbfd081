"""One proof for all streams of a token that have something to send at the same time.

What comes while a proof is under way waits for the next one. So a fast writer costs transactions in
proportion to the tokens that watch, not to the streams and changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from services.kv.watching.changes import Change
from strongbox.access.guard import Caller, Guard, is_spent
from strongbox.errors import PermissionDenied, Unauthenticated
from strongbox.rpc.request_context import Inbound
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View

PROVE_WITHIN = 2.0  # seconds for one proof


class Proved(NamedTuple):
    """The changes that a stream may send, and the revision at which that was proved."""

    changes: list[Change]
    revision: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One stream's request to send changes of a directory."""

    inbound: Inbound
    directory: str  # as policies name it
    changes: Sequence[Change]
    answer: asyncio.Future[Proved]


class Proofs:
    """The proofs of one process's streams."""

    def __init__(self, pipeline: Pipeline, guard: Guard) -> None:
        self._pipeline, self._guard = pipeline, guard
        self._waiting: dict[str, list[Ask]] = {}  # by token
        self._working: dict[str, asyncio.Task[None]] = {}

    async def prove(self, inbound: Inbound, directory: str, changes: Sequence[Change] = ()) -> Proved:
        """Those of the changes that the caller may read now, proved by a transaction sent after this call.

        Raises what the guard raises, and `Unauthenticated` when no use of the token is left.
        """
        ask = Ask(inbound, directory, changes, asyncio.get_running_loop().create_future())
        token = inbound.token
        self._waiting.setdefault(token, []).append(ask)
        if token not in self._working:
            self._working[token] = asyncio.create_task(self._work(token), name="proof of a watch")
        try:
            return await ask.answer
        finally:
            del ask  # what is raised holds this frame, and the answer what is raised

    async def _work(self, token: str) -> None:
        try:
            while asks := self._waiting.pop(token, []):
                await self._answer([ask for ask in asks if not ask.answer.done()])
        finally:
            del self._working[token]

    async def _answer(self, asks: Sequence[Ask]) -> None:
        if not asks:
            return
        now = replace(asks[0].inbound, deadline=time.monotonic() + PROVE_WITHIN)

        def decide(view: View) -> list[list[Change] | None]:
            caller = self._guard.authenticate(view, now)
            if is_spent(caller.record):
                raise Unauthenticated
            return [_readable(caller, ask) for ask in asks]

        try:
            done = await self._pipeline.submit(Work(decide, None, now.deadline))
        except Exception as failure:  # noqa: BLE001  every waiting stream gets it
            for ask in asks:
                if not ask.answer.done():  # without its frames, which hold the asks and their requests
                    ask.answer.set_exception(failure.with_traceback(None))
            return
        for ask, changes in zip(asks, done.value, strict=True):
            if ask.answer.done():
                continue
            if changes is None:
                ask.answer.set_exception(PermissionDenied())
            else:
                ask.answer.set_result(Proved(changes, done.revision))


def _readable(caller: Caller, ask: Ask) -> list[Change] | None:
    """Those of the changes that the caller may read; `None`: it may not list the directory."""
    if not caller.allows("list", ask.directory):
        return None
    return [change for change in ask.changes if caller.allows("read", f"secret/{change.path}")]
