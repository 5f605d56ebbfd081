"""Many streams of one process: one watch of etcd, shared proofs, and nothing lost where they meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from services.kv.watching import feed, follower_backlog, watch_secrets
from services.kv.watching.changes import Change
from strongbox.store.decisions.pipeline import Work
from strongbox.store.etcd.watch import Batch, watch
from tests.services.kv.test_over_etcd import Replica
from tests.services.kv.watching.test_watch_secrets import WAIT, folder, kv, opened, take, token_of
from tests.support.etcd import etcd_member

__all__ = ["etcd_member", "folder", "kv"]
TOKENS, STREAMS, WRITES = 10, 10, 8
LARGE = "x" * (511 << 10)


@pytest.fixture
def watches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each watch of etcd began."""
    begun = list[int]()

    def counted(etcd: Any, key: bytes, end: bytes, position: int) -> AsyncGenerator[Batch, None]:
        begun.append(position)
        return watch(etcd, key, end, position)

    monkeypatch.setattr(feed, "watch", counted)
    return begun


async def test_a_hundred_streams_of_ten_tokens_cost_one_watch_and_a_proof_per_token(
    kv: Replica, folder: str, watches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_secrets, "PROVE_EVERY", 600.0)
    tokens = [await token_of(kv, ancestors=[]) for _ in range(TOKENS)]
    first = int((await kv.write(f"{folder}/a", "0")).revision)
    proofs = 0
    submit = kv.pipeline.submit

    async def counted(work: Work[Any]) -> Any:
        nonlocal proofs
        proofs += work.draft is None
        return await submit(work)

    monkeypatch.setattr(kv.pipeline, "submit", counted)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(opened(kv, folder, first, token)))
            for token in tokens
            for _ in range(STREAMS)
        ]
        await asyncio.gather(*(take(stream, 1) for stream in streams))
        catching_up = len(watches) - 1
        proofs = 0
        for number in range(WRITES):
            waiting = [asyncio.ensure_future(take(stream, 1)) for stream in streams]
            await kv.write(f"{folder}/a", LARGE)
            told = await asyncio.gather(*waiting)
            assert told == [[("a", number + 2, "WRITTEN")]] * len(streams)
    assert proofs <= TOKENS * WRITES
    assert catching_up < len(streams)
    assert len(watches) == 1 + catching_up, "none more while it was told"


async def test_streams_from_now_on_open_no_watch_of_their_own(
    kv: Replica, folder: str, watches: list[int]
) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(opened(kv, folder))) for _ in range(8)]
        waiting = [asyncio.ensure_future(take(stream, 1)) for stream in streams]
        await asyncio.sleep(0.5)  # each tells of what comes after it was opened
        await kv.write(f"{folder}/a", "v")
        assert await asyncio.gather(*waiting) == [[("a", 1, "WRITTEN")]] * 8
    assert len(watches) == 1


async def test_who_begins_earlier_catches_up_and_meets_the_others_without_a_gap(
    kv: Replica, folder: str, watches: list[int]
) -> None:
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    async with aclosing(opened(kv, folder, first)) as one:
        for _ in range(30):
            await kv.write(f"{folder}/a", "v")
        await take(one, 31)

        async def go_on() -> None:
            for _ in range(30):
                await kv.write(f"{folder}/a", "v")

        writing = asyncio.ensure_future(go_on())
        async with aclosing(opened(kv, folder, first)) as other:
            told = await take(other, 61)
        await writing
        assert told == [("a", number, "WRITTEN") for number in range(1, 62)]
        assert [number for _, number, _ in await take(one, 30)] == list(range(32, 62))
    assert watches == [first, first]


async def test_who_catches_up_and_does_not_read_keeps_nobody_from_catching_up(
    kv: Replica, folder: str
) -> None:
    kv.watching._feed._catching_up = asyncio.Semaphore(1)
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    async with aclosing(opened(kv, folder, first)) as one:
        for _ in range(9):
            await kv.write(f"{folder}/a", "v")
        await take(one, 10)
        async with aclosing(opened(kv, folder, first)) as slow, aclosing(opened(kv, folder, first)) as other:
            await take(slow, 1)
            assert len(await take(other, 10)) == 10


async def test_who_does_not_read_is_told_to_list_again_and_then_goes_on(
    kv: Replica, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_backlog, "MOST_WAITING", 5)
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    async with aclosing(opened(kv, folder, first)) as slow, aclosing(opened(kv, folder, first)) as quick:
        await take(slow, 1)
        await take(quick, 1)
        for number in range(20):
            last = await kv.write(f"{folder}/a", "v")
            assert await take(quick, 1) == [("a", number + 2, "WRITTEN")]
        told = await until_resync(slow)
        assert told[-1].revision >= int(last.revision)
        assert len(told) <= 2 + follower_backlog.MOST_WAITING
        await kv.write(f"{folder}/a", "v")
        assert await take(slow, 1) == [("a", 22, "WRITTEN")]


async def until_resync(stream: AsyncGenerator[Change, None]) -> list[Change]:
    told = list[Change]()
    async with asyncio.timeout(WAIT):
        while not told or told[-1].kind != "RESYNC":
            told.append(await anext(stream))
    return told


async def test_who_waits_for_a_revision_to_come_leaves_the_others_one_watch(
    kv: Replica, folder: str, watches: list[int]
) -> None:
    async with aclosing(opened(kv, folder, 1 << 60)) as far:
        never = asyncio.ensure_future(take(far, 1))
        await asyncio.sleep(0.2)  # it is the first to follow
        first = int((await kv.write(f"{folder}/a", "1")).revision)
        async with aclosing(opened(kv, folder, first + 1)) as near:
            waiting = asyncio.ensure_future(take(near, 1))
            await asyncio.sleep(0.2)
            await kv.write(f"{folder}/a", "2")
            assert await waiting == [("a", 2, "WRITTEN")]
        never.cancel()
        await asyncio.gather(never, return_exceptions=True)
    assert len(watches) == 1
