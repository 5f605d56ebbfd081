"""Admission over real etcd: what a full store refuses, what it never refuses, and who is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import SystemClock
from strongbox.errors import Overloaded, UnknownOutcome
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Effect, Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import OutOfSpace
from strongbox.store.space.admission import Room, Space, effect_of
from strongbox.store.space.defragment import Defragmenter
from strongbox.store.space.room_keeper import Keeper
from tests.support.etcd import EtcdCluster

MIB = 1 << 20
QUOTA = 32 * MIB


class Replica:
    """One process's pipeline."""

    def __init__(self, endpoints: list[str]) -> None:
        self.etcd = Etcd(endpoints)
        self.pipeline = Pipeline(self.etcd, Memory(), Outbox("kv"), SystemClock(), Space(QUOTA))

    async def act(
        self, decide: Callable[[View], object], effect: Effect | None = None, *, always: bool = False
    ) -> object:
        def authenticated(view: View) -> object:
            assert view.draft is not None
            view.draft.accessor = "me"
            return decide(view)

        draft = Draft(op="op", path="p", request_id="r", client="c")
        work = Work(authenticated, draft, time.monotonic() + 10, always=always, effect=effect)
        return (await self.pipeline.submit(work)).value

    async def put(self, key: bytes, size: int) -> None:
        def decide(view: View) -> None:
            view.get(key)
            view.put(key, bytes(size))

        await self.act(decide)


@pytest.fixture
async def store() -> AsyncIterator[Replica]:
    with EtcdCluster(1, extra=[f"--quota-backend-bytes={QUOTA}"]) as cluster:
        replica = Replica(cluster.endpoints)
        await replica.pipeline.start()
        yield replica
        await replica.pipeline.close()
        await replica.etcd.close()


async def say(etcd: Etcd, share: float) -> None:
    """As the keeper: so much of the quota is in use."""
    revision = (await etcd.range(b"/none")).revision
    told = Room(revision, int(share * QUOTA), int(share * QUOTA), QUOTA, "test").pack()
    await etcd.transact(txn.txn([], [txn.put(keyspace.ROOM, told)]), idempotent=True)


async def fill(etcd: Etcd) -> None:
    """Past every service, until etcd's own alarm stands."""
    for number in range(2 * QUOTA // MIB):
        filler = txn.put(b"/filler/%d" % number, bytes(MIB))
        await etcd.transact(txn.txn([], [filler]), deadline=time.monotonic() + 10, idempotent=True)


def read(view: View) -> bytes | None:
    return view.get(b"/strongbox/test/there").value


async def test_growth_stops_from_70_percent_reading_goes_on_until_85_and_deleting_for_ever(
    store: Replica,
) -> None:
    await store.put(b"/strongbox/test/there", 10)
    await say(store.etcd, 0.71)
    await store.act(read)  # its answer brings the news
    with pytest.raises(Overloaded, match="nearly used up"):
        await store.put(b"/strongbox/test/new", 10)
    with pytest.raises(Overloaded):
        await store.put(b"/strongbox/test/there", 200)
    assert await store.act(read) == bytes(10)
    await store.put(b"/strongbox/test/there", 11)  # as a counter
    await say(store.etcd, 0.86)
    await store.act(read)
    with pytest.raises(Overloaded):
        await store.act(read)
    await store.act(lambda view: view.put(b"/strongbox/test/sealed", b"x"), always=True)
    await store.act(lambda view: view.put(b"/strongbox/test/mark", b"x"), Effect.SAFETY)

    def marked(view: View) -> None:
        view.means(Effect.FREES)
        view.put(b"/strongbox/test/marker", b"x")

    await store.act(marked)
    await store.act(lambda view: view.delete(b"/strongbox/test/there"))
    await say(store.etcd, 0.3)
    await store.put(b"/strongbox/test/new", 10)


async def test_who_says_that_it_frees_and_changes_nothing_only_reads(store: Replica) -> None:
    await say(store.etcd, 0.86)
    await store.act(read)
    with pytest.raises(Overloaded):
        await store.act(lambda view: view.means(Effect.FREES))


async def test_what_frees_and_what_safety_needs_goes_on_while_etcds_own_alarm_stands(store: Replica) -> None:
    """Nobody of StrongBox's got it there: somebody who writes to etcd past every service."""
    kept = [b"/strongbox/test/kept%d" % number for number in range(4)]
    for key in kept:
        await store.put(key, 1000)
    with pytest.raises(OutOfSpace):
        await fill(store.etcd)

    def remove(key: bytes) -> Callable[[View], None]:
        def decide(view: View) -> None:
            assert view.get(key).value is not None
            view.delete(key)

        return decide

    def mark(view: View) -> None:
        view.put(b"/strongbox/test/marker", b"revoked")

    for _ in range(2):  # also when it is known by now that etcd is full
        with pytest.raises((Overloaded, UnknownOutcome)):
            await store.put(b"/strongbox/test/more", 1000)
        together = [
            store.act(remove(kept.pop())),
            store.put(b"/strongbox/test/more", 10),
            store.act(mark, always=True),
        ]
        freed, refused, safe = await asyncio.gather(*together, return_exceptions=True)
        assert (freed, safe) == (None, None)
        assert isinstance(refused, Overloaded | UnknownOutcome)
    assert await store.etcd.get(b"/strongbox/test/marker") is not None
    assert await store.etcd.get(b"/strongbox/test/more") is None
    assert [await store.etcd.get(key) is not None for key in kept] == [True, True]
    assert await store.etcd.is_full()


async def test_a_decision_knows_whether_it_may_make_keys(store: Replica) -> None:
    assert await store.act(lambda view: view.may_grow())
    await say(store.etcd, 0.75)
    await store.act(read)  # its answer brings the news
    assert not await store.act(lambda view: view.may_grow())
    await say(store.etcd, 0.1)
    assert await store.act(lambda view: view.may_grow())  # nobody is refused by what was once so


async def test_one_caller_s_growth_ends_below_the_reserve_however_fast_it_is(store: Replica) -> None:
    """Nobody measures meanwhile: the process stops by what it has put itself."""
    refused = 0
    for number in range(60):
        try:
            await store.put(b"/strongbox/test/large/%d" % number, 900_000)
        except Overloaded:
            refused += 1
    assert refused
    await asyncio.sleep(0.3)
    assert (await store.etcd.status(store.etcd.ring.members[0].address)).db_size < 0.75 * QUOTA


async def test_three_replicas_together_do_not_pass_the_reserve() -> None:
    with EtcdCluster(1, extra=[f"--quota-backend-bytes={QUOTA}"]) as cluster:
        replicas = [Replica(cluster.endpoints) for _ in range(3)]
        keeper = Keeper(
            replicas[0].etcd, cluster.endpoints, QUOTA, "k", Defragmenter(replicas[0].etcd, cluster.endpoints)
        )
        keeping = asyncio.create_task(keeper.keep())
        for replica in replicas:
            await replica.pipeline.start()

        async def flood(replica: Replica, name: int) -> None:
            until = time.monotonic() + 8
            number = 0
            while time.monotonic() < until:
                number += 1
                try:
                    await replica.put(b"/strongbox/test/%d/%d" % (name, number), 200_000)
                except Overloaded:
                    await asyncio.sleep(0.01)

        await asyncio.gather(*(flood(replica, name) for name, replica in enumerate(replicas)))
        etcd = replicas[0].etcd
        assert not await etcd.is_full()
        status = await etcd.status(cluster.endpoints[0])
        assert status.db_size < 0.95 * QUOTA
        assert await replicas[1].act(read) is None
        keeping.cancel()
        for replica in replicas:
            await replica.pipeline.close()
            await replica.etcd.close()


def test_the_effect_is_seen_in_what_is_put_and_deleted() -> None:
    held = {b"a": b"12345", b"gone": None, b"large": bytes(20_000)}
    reads = {b"a": 4, b"gone": 0, b"large": 5}

    def of(puts: dict[bytes, bytes], deletes: set[bytes]) -> Effect:
        return effect_of(puts, deletes, reads, held.get)

    assert of({}, set()) is Effect.NEUTRAL
    assert of({b"a": b"12346"}, set()) is Effect.NEUTRAL
    assert of({b"a": b"1"}, set()) is Effect.FREES
    assert of({b"a": bytes(200)}, set()) is Effect.GROWS
    assert of({b"a": bytes(20_000)}, {b"x", b"y"}) is Effect.GROWS
    assert of({b"large": b"x" * 20_000}, set()) is Effect.GROWS  # no longer than before, and a history
    assert of({b"large": bytes(16_000)}, set()) is Effect.FREES
    assert of({b"new": b""}, set()) is Effect.GROWS
    assert of({b"new": b""}, {b"old"}) is Effect.NEUTRAL  # an entry of an index moves
    assert of({b"new": b""}, {b"gone"}) is Effect.GROWS  # what is known to be absent frees nothing
    assert of({}, {b"old"}) is Effect.FREES
