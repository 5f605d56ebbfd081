"""What the calls share: guard, decide, audit and carry out in one transaction; and pages of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from services.auth.list_filter import shown_names
from strongbox.access.guard import Caller, Guard
from strongbox.audit_outbox.outbox import draft_of
from strongbox.rpc.request_context import Inbound, inbound_of
from strongbox.store import paging
from strongbox.store.decisions.pipeline import Outcome, Pipeline, Work
from strongbox.store.decisions.view import View

T = TypeVar("T")


class Page(NamedTuple):
    """Names, and the token of the next page (empty: there is none)."""

    names: list[str]
    token: str


class Acting:
    """The base of all calls."""

    def __init__(self, pipeline: Pipeline, guard: Guard) -> None:
        self._pipeline, self._guard = pipeline, guard

    async def act(
        self, context: Any, op: str, capability: str, path: str, decide: Callable[[View, Caller], T]
    ) -> Outcome[T]:
        """Require `capability` on `path`, then decide.

        Empty `capability`: the decision checks permissions itself.
        """
        inbound: Inbound = inbound_of(context)

        def guarded(view: View) -> T:
            if not capability:
                return decide(view, self._guard.authenticate(view, inbound))
            return decide(view, self._guard.require(view, inbound, capability, path))

        return await self._pipeline.submit(Work(guarded, draft_of(inbound, op, path), inbound.deadline))

    async def allow(self, context: Any, op: str, path: str, decide: Callable[[View, Caller], None]) -> None:
        """Require `write` on `path`, then call `decide`. Refusals are raised and recorded.

        A permission leaves no record: the operation that it is for follows at once.
        """

        def permitted(view: View, caller: Caller) -> None:
            decide(view, caller)
            view.draft = None

        await self.act(context, op, "write", path, permitted)

    async def list_names(
        self, context: Any, op: str, prefix: bytes, path: str, size: int, token: str, kind: type[Any]
    ) -> Page:
        """One page of the names below a prefix that the caller may see; `kind`: the records' message type."""
        keys, size = self._guard.lookup.require_keys(), paging.page_size(size)
        start, end = paging.page_range(keys, prefix, token)

        def decide(view: View, caller: Caller) -> list[str]:
            view.fetch(start, end, limit=size)
            view.reveal(lambda rows: shown_names(caller, rows, path, kind))
            return []

        done = await self.act(context, op, "list", path, decide)
        return Page(done.value, paging.next_token(keys, prefix, _keys_of(done.rows), size))


def _keys_of(rows: Sequence[Any]) -> list[bytes]:
    return [row.key for row in rows]
