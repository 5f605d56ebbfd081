"""The guard is dropped from a request's further transactions: memory says who asks, and nothing proves it."""

import sys
from typing import Any


def _change() -> None:
    from services.lease.guarded_call import Calls
    from strongbox.store import keyspace
    from strongbox.store.decisions.pipeline import Work

    async def unproved(self: Any, inbound: Any, decide: Any) -> Any:
        def decided(view: Any) -> Any:
            value = decide(view, self.guard.authenticate(view, inbound))
            reads = view.footprint.reads
            for key in [key for key in reads if key.startswith(keyspace.TOKENS)]:
                del reads[key]
            return value

        return await self.pipeline.submit(Work(decided, None, inbound.deadline))

    Calls.after = unproved  # type: ignore[method-assign]


if "services.lease" in sys.orig_argv:
    _change()
