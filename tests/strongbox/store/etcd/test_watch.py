"""A watch over members that die, connections that break and history that is compacted."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing
from typing import cast

import pytest
from etcd3.etcdrpc import kv_pb2 as kv
from etcd3.etcdrpc import rpc_pb2 as pb

from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import Compacted
from strongbox.store.etcd.watch import Batch, Event, Kind, watch
from tests.support.etcd import EtcdCluster
from tests.support.proxy import TcpProxy

_PATIENCE = 60.0  # seconds for what takes well under ten


async def put_many(etcd: Etcd, prefix: bytes, first: int, count: int) -> list[tuple[bytes, int]]:
    """One revision per key, `count` keys from number `first` on; (key, revision) in order."""
    written = []
    for number in range(first, first + count):
        key = prefix + f"{number:06d}".encode()
        request = txn.txn([txn.mod_is(key, 0)], [txn.put(key, b"x")], [txn.range_(key)])
        answer = await etcd.transact(request, deadline=time.monotonic() + 20, idempotent=True)
        found = answer.responses[0].response_range.kvs
        written.append((key, found[0].mod_revision if found else answer.header.revision))
    return written


async def collect(etcd: Etcd, prefix: bytes, start: int, count: int) -> list[Batch]:
    """Batches from revision `start` on until so many events were seen."""
    batches: list[Batch] = []
    async with (
        asyncio.timeout(_PATIENCE),
        aclosing(watch(etcd, prefix, txn.prefix_end(prefix), start)) as seen,
    ):
        async for batch in seen:
            batches.append(batch)
            if sum(len(b.events) for b in batches) >= count:
                return batches
    raise AssertionError("unreachable")


def events_of(batches: list[Batch]) -> list[tuple[bytes, int]]:
    """(key, revision) of every event in order."""
    return [(event.key, event.mod_revision) for batch in batches for event in batch.events]


async def test_puts_and_deletions_arrive_in_order_whole_revisions_at_a_time(
    etcd: Etcd, prefix: bytes
) -> None:
    a, b = prefix + b"a", prefix + b"b"
    one = await etcd.transact(txn.txn([], [txn.put(a, b"1"), txn.put(b, b"2")]))
    two = await etcd.transact(txn.txn([], [txn.delete(a)]))
    first, second = one.header.revision, two.header.revision
    batches = await collect(etcd, prefix, first, 3)
    assert [event for batch in batches for event in batch.events] == [
        Event(Kind.PUT, a, b"1", first),
        Event(Kind.PUT, b, b"2", first),
        Event(Kind.DELETE, a, b"", second),
    ]
    assert batches[-1].revision == second


async def test_without_a_start_only_what_comes_later_is_seen(etcd: Etcd, prefix: bytes) -> None:
    await put_many(etcd, prefix, 0, 3)
    async with aclosing(watch(etcd, prefix, txn.prefix_end(prefix))) as seen:
        waiting = asyncio.ensure_future(anext(seen))
        await asyncio.sleep(0.5)
        later = await put_many(etcd, prefix, 3, 1)
        assert events_of([await asyncio.wait_for(waiting, 10)]) == later


async def test_five_thousand_events_survive_the_death_and_return_of_the_watched_member(
    etcd_cluster: EtcdCluster, prefix: bytes
) -> None:
    """Catch-up from an old revision, killed after the first batch, and again while the events are live."""
    writer, watcher = Etcd(etcd_cluster.endpoints[1:]), Etcd(etcd_cluster.endpoints)
    written = [pair for part in await _in_parallel(writer, prefix, 8, 500) for pair in part]
    start = min(revision for _, revision in written)
    live = asyncio.create_task(_in_parallel(writer, prefix + b"live-", 4, 250))
    seen: list[Batch] = []
    killed = False
    async with (
        asyncio.timeout(_PATIENCE),
        aclosing(watch(watcher, prefix, txn.prefix_end(prefix), start)) as batches,
    ):
        async for batch in batches:
            seen.append(batch)
            if not killed:
                killed = True
                etcd_cluster.members[0].kill()
                etcd_cluster.restart(0, wait=False)
            if sum(len(b.events) for b in seen) >= 5000:
                break
    written += [pair for part in await live for pair in part]
    assert events_of(seen) == sorted(written, key=lambda pair: pair[1])
    revisions = [{event.mod_revision for event in batch.events} for batch in seen]
    assert sum(map(len, revisions)) == len(set().union(*revisions)), "a revision was split between batches"
    await writer.close()
    await watcher.close()


async def _in_parallel(etcd: Etcd, prefix: bytes, writers: int, each: int) -> list[list[tuple[bytes, int]]]:
    return await asyncio.gather(*(put_many(etcd, prefix, i * each, each) for i in range(writers)))


async def test_a_watch_resumes_over_a_connection_that_is_cut_again_and_again(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    writer = Etcd(etcd_member.endpoints)
    start = (await writer.status()).revision + 1
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        watcher = Etcd([proxy.endpoint])
        collecting = asyncio.create_task(collect(watcher, prefix, start, 400))
        written = []
        for round_ in range(4):
            written += await put_many(writer, prefix, round_ * 100, 100)
            await proxy.cut()
        assert events_of(await collecting) == written
        await watcher.close()
    await writer.close()


async def test_a_vanished_member_is_noticed_and_the_watch_moves_to_another(
    etcd_cluster: EtcdCluster, three: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_cluster.endpoints[0]) as proxy:
        watcher = Etcd([proxy.endpoint, *etcd_cluster.endpoints[1:]])
        start = (await three.status()).revision + 1
        collecting = asyncio.create_task(collect(watcher, prefix, start, 20))
        written = await put_many(three, prefix, 0, 10)
        proxy.hold()
        written += await put_many(three, prefix, 10, 10)
        assert events_of(await collecting) == written
        assert watcher.ring.pick().address != proxy.endpoint
        await watcher.close()


async def test_a_start_that_was_compacted_is_said_so_that_the_caller_lists_again(
    etcd: Etcd, prefix: bytes
) -> None:
    written = await put_many(etcd, prefix, 0, 5)
    await etcd.compact(written[3][1])
    with pytest.raises(Compacted) as caught:
        await collect(etcd, prefix, written[0][1], 5)
    assert caught.value.revision == written[3][1]
    assert events_of(await collect(etcd, prefix, written[3][1], 2)) == written[3:]


async def test_compaction_during_an_outage_of_the_watch_is_never_skipped_over(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    direct = Etcd(etcd_member.endpoints)
    start = (await direct.status()).revision + 1
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        watcher = Etcd([proxy.endpoint])
        async with aclosing(watch(watcher, prefix, txn.prefix_end(prefix), start)) as seen:
            await put_many(direct, prefix, 0, 1)
            await asyncio.wait_for(anext(seen), 10)
            await proxy.cut(refuse=True)
            missed = await put_many(direct, prefix, 1, 3)
            await direct.compact(missed[-1][1])
            await proxy.accept()
            with pytest.raises(Compacted):
                await asyncio.wait_for(anext(seen), _PATIENCE)
        await watcher.close()
    await direct.close()


async def test_a_member_without_a_leader_gives_the_watch_up_and_events_follow_when_quorum_returns(
    etcd_cluster: EtcdCluster, prefix: bytes
) -> None:
    etcd = Etcd(etcd_cluster.endpoints)
    start = (await etcd.status()).revision + 1
    collecting = asyncio.create_task(collect(etcd, prefix, start, 2))
    written = await put_many(etcd, prefix, 0, 1)
    for member in etcd_cluster.members[1:]:
        member.kill()
    await asyncio.sleep(2.0)
    for index in (1, 2):
        etcd_cluster.restart(index, wait=False)
    written += await put_many(etcd, prefix, 1, 1)
    assert events_of(await collecting) == written
    await etcd.close()


async def test_what_etcd_sent_is_not_kept_while_whoever_follows_does_not_ask_for_more() -> None:
    """An answer may be 64 MiB, and there may be many who do not read."""
    event = kv.Event(kv=kv.KeyValue(key=b"a", value=b"v" * 4096, mod_revision=5))
    answer = pb.WatchResponse(events=[event])
    alone = sys.getrefcount(answer)
    etcd = Answering([pb.WatchResponse(created=True), answer])
    async with aclosing(watch(cast("Etcd", etcd), b"a", start_revision=5)) as seen:
        batch = await anext(seen)
        assert sys.getrefcount(answer) == alone
        value = batch.events[0].value
        del batch
        assert sys.getrefcount(value) == 2


class Answering:
    """As far as a watch sees `Etcd`, its ring, a member and a stream; what it was given it gives away."""

    def __init__(self, answers: list[pb.WatchResponse]) -> None:
        self.ring, self._answers = self, answers

    def pick(self) -> Answering:
        return self

    def lasting_stream(self, *_: object) -> Answering:
        return self

    def worked(self, _: float) -> None:
        """It did."""

    async def write(self, _: object) -> None:
        """Taken."""

    async def read(self) -> pb.WatchResponse:
        return self._answers.pop(0)

    def cancel(self) -> None:
        """Over."""
