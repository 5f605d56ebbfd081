"""Whether a replica may say that it knows every key term there is."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from services.seal.key_terms import keyring_refresh
from services.seal.key_terms.keyring_refresh import Refresher


async def test_a_look_that_was_cancelled_tells_who_waited_for_it_nothing(monkeypatch: Any) -> None:
    """It had begun after both had asked; an earlier one had succeeded."""
    monkeypatch.setattr(keyring_refresh, "_AT_MOST_EVERY", 0.0)
    refresher = Refresher(cast("Any", None), cast("Any", None))
    reading = asyncio.Event()

    async def succeeds() -> bool:
        return True

    async def hangs() -> bool:
        reading.set()
        await asyncio.Event().wait()
        return True

    refresher._read_once = succeeds  # type: ignore[method-assign]
    assert await refresher.look()
    refresher._read_once = hangs  # type: ignore[method-assign]
    first = asyncio.create_task(refresher.look())
    second = asyncio.create_task(refresher.look())
    await reading.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not await asyncio.wait_for(second, 5)
