"""A read that was begun before `seal` gives its value after `seal` has answered."""

import asyncio
import sys
from typing import Any

_LATE = 1.5  # seconds


def _change() -> None:
    from services.kv import servicer

    read = servicer.KVServicer.ReadSecret

    async def late(self: Any, request: Any, context: Any) -> Any:
        answer = await read(self, request, context)
        await asyncio.sleep(_LATE)
        return answer

    servicer.KVServicer.ReadSecret = late  # type: ignore[method-assign]


if "services.kv" in sys.orig_argv:
    _change()
