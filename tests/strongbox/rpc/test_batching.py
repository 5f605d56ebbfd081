"""What is asked as one and fails is not kept: among it are data keys that were to be wrapped."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence

import pytest

from strongbox.errors import DependencyDown
from strongbox.rpc.batching import Batching


class Question:
    """As a data key."""


async def test_what_was_asked_in_vain_is_free_at_once() -> None:
    asked = list[weakref.ref[Question]]()

    async def fails(_: Sequence[Question]) -> list[bytes]:
        raise DependencyDown

    async def ask(batching: Batching[Question, bytes]) -> None:
        question = Question()
        asked.append(weakref.ref(question))
        with pytest.raises(DependencyDown):
            await batching.ask([question])

    gc.disable()
    try:
        batching = Batching(fails)
        await asyncio.gather(*(ask(batching) for _ in range(3)))
        await asyncio.sleep(0)
        assert [one() for one in asked] == [None] * 3
    finally:
        gc.enable()
