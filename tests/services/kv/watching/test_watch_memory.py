"""What a watch held is free when it is over or has failed, and what one who does not read keeps is small."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

import pytest

from services.kv.watching import feed, follower_backlog, watch_secrets
from services.kv.watching.changes import Change
from services.kv.watching.feed import Feed
from services.kv.watching.follower_backlog import Behind, Follower
from services.kv.watching.watch_secrets import Watching
from services.kv.watching.watcher_proofs import Ask, Proofs
from strongbox.access.authenticated_records import seal_record
from strongbox.access.guard import Guard
from strongbox.errors import NoQuorum, Unauthenticated
from strongbox.paths import DirectoryPath
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd.errors import Compacted
from strongbox.store.etcd.watch import Batch, Event, Kind
from tests.support.access import FakeCluster
from tests.support.pipeline import FakePipeline

KINDS = (Ask, Inbound, Follower, View, Exception, asyncio.Task)


@contextmanager
def collecting() -> Iterator[list[Any]]:
    """What only the collector of circles takes away, of what was made inside."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        found = list[Any]()
        yield found
        gc.collect()
        found += [one for one in gc.garbage if isinstance(one, KINDS)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def inbound(cluster: FakeCluster) -> Inbound:
    return Inbound(cluster.root, "request", "", "", time.monotonic() + 5)


class Failing(FakePipeline):
    """Whose etcd has no quorum."""

    async def submit(self, work: Work[Any]) -> Any:
        raise NoQuorum


async def test_a_proof_that_fails_leaves_no_circle() -> None:
    cluster = FakeCluster()

    async def fails() -> None:
        proofs = Proofs(cast("Any", Failing(cluster.store)), Guard(cast("Any", cluster.source)))
        asked = [proofs.prove(inbound(cluster), "secret/") for _ in range(3)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in told] == [NoQuorum] * 3

    with collecting() as left:
        await fails()
        await asyncio.sleep(0)
    assert left == []


async def test_a_feed_that_fails_leaves_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: object) -> AsyncIterator[Batch]:
        await asyncio.sleep(0)
        raise Compacted("gone", 7)
        yield  # a generator

    async def fails() -> None:
        following = Feed(cast("Any", None))
        streams = [following.follow("a/", 5, 4) for _ in range(3)]
        told = await asyncio.gather(*(anext(one) for one in streams), return_exceptions=True)
        assert [(type(one), cast("Compacted", one).revision) for one in told] == [(Compacted, 7)] * 3

    monkeypatch.setattr(feed, "watch", gone)
    with collecting() as left:
        await fails()
        await asyncio.sleep(0)
    assert left == []


async def test_who_is_behind_leaves_no_circle() -> None:
    async def fails() -> None:
        follower = Follower("", 1)
        follower.offer([Change("a", 1, "WRITTEN", 5)] * (follower_backlog.MOST_WAITING + 1))
        with pytest.raises(Behind):
            await follower.take()

    with collecting() as left:
        await fails()
        await asyncio.sleep(0)
    assert left == []


async def test_a_stream_that_ends_leaves_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was let in, and told to list again; then its token is gone."""
    cluster = FakeCluster()

    async def gone(*_: object) -> AsyncIterator[Batch]:
        await asyncio.sleep(0)
        raise Compacted("gone")
        yield  # a generator

    async def fails() -> None:
        pipeline, guard = FakePipeline(cluster.store), Guard(cast("Any", cluster.source))
        watching = Watching(cast("Any", pipeline), guard, cast("Any", None))
        async with aclosing(watching.changes(inbound(cluster), DirectoryPath("a"), 5)) as stream:
            assert (await anext(stream)).kind == "RESYNC"
            cluster.drop(cluster.root)
            with pytest.raises(Unauthenticated):
                await anext(stream)

    monkeypatch.setattr(feed, "watch", gone)
    monkeypatch.setattr(watch_secrets, "PROVE_EVERY", 0.05)
    with collecting() as left:
        await fails()
        await asyncio.sleep(0)
    assert left == []


@pytest.mark.parametrize("catches_up", [True, False])
async def test_who_does_not_read_on_keeps_no_head(monkeypatch: pytest.MonkeyPatch, catches_up: bool) -> None:
    """An answer of etcd may hold many heads, each far larger than what is told of it."""
    value = head()
    alone = sys.getrefcount(value)
    answers = [Batch((Event(Kind.PUT, keyspace.head("a/b"), value, 5),), 5)]

    async def told(*_: object) -> AsyncGenerator[Batch, None]:
        while answers:
            yield answers.pop()
        await asyncio.Event().wait()

    monkeypatch.setattr(feed, "watch", told)
    following = Feed(cast("Any", None))
    if catches_up:  # others have been told of it already
        following._seen, following._has_told = 6, True
        following._task = asyncio.create_task(asyncio.sleep(60))
    async with aclosing(following.follow("a/", 5, 4)) as stream:
        changes = await anext(stream)
        assert [(one.kind, one.revision) for one in changes] == [("WRITTEN", 5)]
        assert sys.getrefcount(value) == alone


def head() -> bytes:
    operation = storage.StoredOperation(op="WriteSecret", versions=[1])
    body = storage.SecretHead(current_version=1, operations=[operation]).SerializeToString()
    return seal_record(FakeCluster().keys, keyspace.head("a/b"), body)
