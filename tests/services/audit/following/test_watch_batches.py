"""Taking in lots: order, hurry, the end of the source, its errors, and a reader that is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from services.audit.following import watch_batches
from services.audit.following.watch_batches import Hurry, gathered


async def numbers(count: int, then: Exception | None = None, pause: float = 0.0) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(pause)
        yield number
    if then is not None:
        raise then


async def test_all_that_came_is_given_once_and_in_order() -> None:
    lots = [lot async for lot in gathered(numbers(2500), Hurry())]
    assert [number for lot in lots for number in lot] == list(range(2500))
    assert len(lots) < 10


async def test_what_came_before_an_error_is_given_before_the_error() -> None:
    given: list[int] = []

    async def take() -> None:
        async for lot in gathered(numbers(3, KeyError("gone")), Hurry()):
            given.extend(lot)

    with pytest.raises(KeyError):
        await take()
    assert given == [0, 1, 2]


async def test_who_waits_is_not_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_batches, "WITHIN", 3600.0)
    hurry = Hurry()
    async with aclosing(gathered(numbers(5, pause=0.01), hurry)) as lots:
        taking = asyncio.ensure_future(anext(lots))
        await asyncio.sleep(0.2)
        assert not taking.done()
        with hurry:
            assert await taking == [0, 1, 2, 3, 4]


async def test_closing_stops_the_reader() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    async with aclosing(gathered(endless(), Hurry())) as lots:
        assert (await anext(lots))[0] == 1
    await asyncio.wait_for(closed.wait(), 5)
