"""A read is allowed by the policies as they are after it, not as they were at its revision."""

import asyncio
import sys
from typing import Any

_DELAY = 0.15  # seconds: about as long as the veil's next two steps take, on a busy machine


class _Lax:
    """A guard that says who it is, and asks nothing else: everybody may read his own token."""

    def __init__(self, guard: Any) -> None:
        self._guard = guard

    def require(self, view: Any, inbound: Any, capability: str, path: str) -> Any:
        caller = self._guard.require(view, inbound, "read", "auth/tokens/self")
        if view.draft is not None:
            view.draft.path = path
        return caller


def _change() -> None:
    from services.kv.read_secret import Reading
    from strongbox.store.decisions.pipeline import Work

    take = Reading.take

    async def changed(self: Any, inbound: Any, op: str, path: Any, number: Any) -> Any:
        lax: Any = Reading(self._pipeline, _Lax(self._guard), self._secrets, self._keys)  # type: ignore[arg-type]
        taken = await take(lax, inbound, op, path, number)
        await asyncio.sleep(_DELAY)

        def allowed(view: Any) -> None:
            self._guard.require(view, inbound, "read", path.policy_path)

        await self._pipeline.submit(Work(allowed, None, inbound.deadline))
        return taken

    Reading.take = changed  # type: ignore[method-assign]


if "services.kv" in sys.orig_argv:
    _change()
