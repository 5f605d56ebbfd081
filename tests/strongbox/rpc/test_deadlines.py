"""One timer for all calls."""

from __future__ import annotations

import asyncio
import time

import pytest

from strongbox.errors import DeadlineExceeded
from strongbox.rpc.deadlines import TICK, Deadlines


async def test_work_in_time_returns_what_it_returns() -> None:
    async def work() -> int:
        await asyncio.sleep(TICK * 2)
        return 7

    assert await Deadlines().within(time.monotonic() + 1, work()) == 7


async def test_work_is_ended_soon_after_its_deadline_and_others_are_not() -> None:
    deadlines, started = Deadlines(), time.monotonic()
    other = asyncio.create_task(deadlines.within(started + 5, asyncio.sleep(0.3)))
    with pytest.raises(DeadlineExceeded):
        await deadlines.within(started + 0.1, asyncio.sleep(5))
    assert 0.1 <= time.monotonic() - started < 0.1 + 4 * TICK
    await other


async def test_a_deadline_that_has_passed_ends_it_too() -> None:
    with pytest.raises(DeadlineExceeded):
        await Deadlines().within(time.monotonic() - 1, asyncio.sleep(5))


async def test_a_cancellation_stays_a_cancellation_even_beside_the_deadline() -> None:
    deadlines, overdue = Deadlines(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            overdue.set()
            await asyncio.sleep(5)  # until the other cancellation has come as well

    task = asyncio.create_task(deadlines.within(time.monotonic(), stubborn()))
    await overdue.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_the_deadline_the_task_goes_on_uncancelled() -> None:
    deadlines = Deadlines()
    with pytest.raises(DeadlineExceeded):
        await deadlines.within(time.monotonic(), asyncio.sleep(5))
    await asyncio.sleep(0)
    await deadlines.within(time.monotonic() + 1, asyncio.sleep(0.01))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
