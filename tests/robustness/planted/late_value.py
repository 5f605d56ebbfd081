"""A value that was let out before `seal` leaves after `seal` has answered: the check is not the last step."""

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

_LATE = 1.5  # seconds


def _change() -> None:
    from strongbox.rpc import revealing

    answer = revealing.answer

    async def early(access: Any, answering: Awaitable[Any], require_unsealed_since: Any) -> Any:
        told = await answer(access, answering, require_unsealed_since)
        if access.reveals:
            await asyncio.sleep(_LATE)
        return told

    revealing.answer = early  # type: ignore[assignment]


if "services.kv" in sys.orig_argv:
    _change()
