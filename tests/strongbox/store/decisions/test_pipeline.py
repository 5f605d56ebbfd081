"""The pipeline against real etcd: contention, lost answers, late transactions, refusals, limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from strongbox import proof
from strongbox.audit_outbox.outbox import Outbox
from strongbox.audit_outbox.outbox_limit import Bound
from strongbox.clock import SystemClock
from strongbox.errors import (
    Internal,
    NoQuorum,
    Overloaded,
    PermissionDenied,
    StrongBoxError,
    TooLarge,
    Unauthenticated,
    UnknownOutcome,
)
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.decisions.view import View
from strongbox.store.decisions.work import Work
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.endpoints import Options
from tests.support.etcd import EtcdCluster
from tests.support.proxy import TcpProxy


class Replica:
    """One pipeline with its own memory, client and cursor."""

    def __init__(self, endpoints: list[str], attempt: float = 0.4) -> None:
        self.etcd = Etcd(endpoints, options=Options(attempt=attempt))
        self.memory = Memory()
        self.outbox = Outbox("kv")
        self.pipeline = Pipeline(self.etcd, self.memory, self.outbox, SystemClock())

    async def act(
        self,
        decide: Callable[[View], object],
        *,
        accessor: str = "me",
        seconds: float = 10.0,
        name: str = "op",
    ) -> object:
        """Submit one audited decision that authenticates as `accessor` (empty: never does)."""

        def authenticated(view: View) -> object:
            if view.draft is not None:
                view.draft.accessor = accessor
            return decide(view)

        draft = Draft(op=name, path="secret/x", request_id="r", client="c")
        work = Work(authenticated, draft, time.monotonic() + seconds)
        return (await self.pipeline.submit(work)).value

    async def records(self) -> list[storage.OutboxEntry]:
        """Every operation this replica left in the outbox."""
        prefix = keyspace.OUTBOX + f"kv/{self.outbox.incarnation}/".encode()
        rows = (await self.etcd.range(prefix, keyspace.prefix_end(prefix))).rows
        return [entry for row in rows for entry in storage.OutboxRecord.FromString(row.value).entries]


@asynccontextmanager
async def running(endpoints: list[str], attempt: float = 0.4) -> AsyncIterator[Replica]:
    replica = Replica(endpoints, attempt)
    await replica.pipeline.start()
    try:
        yield replica
    finally:
        await replica.pipeline.close()
        await replica.etcd.close()


def increment(key: bytes) -> Callable[[View], int]:
    def decide(view: View) -> int:
        value = int(view.get(key).value or b"0") + 1
        view.put(key, b"%d" % value)
        return value

    return decide


def look(key: bytes) -> Callable[[View], bytes | None]:
    return lambda view: view.get(key).value


async def test_two_replicas_that_increment_one_counter_lose_and_repeat_nothing(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    key = prefix + b"counter"
    async with running(etcd_member.endpoints) as one, running(etcd_member.endpoints) as other:
        told = await asyncio.gather(
            *(replica.act(increment(key), seconds=60) for _ in range(60) for replica in (one, other))
        )
        assert sorted(told) == list(range(1, 121))  # type: ignore[type-var]
        assert len(await one.records()) == len(await other.records()) == 60


async def test_a_read_decided_from_stale_memory_is_decided_again(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    key = prefix + b"k"
    async with running(etcd_member.endpoints) as replica:
        assert await replica.act(look(key)) is None
        for number in range(5):
            await etcd.transact(txn.txn([], [txn.put(key, b"%d" % number)]), idempotent=True)
            assert await replica.act(look(key)) == b"%d" % number


async def test_one_stale_read_does_not_spoil_the_reads_that_share_its_part(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    keys = [prefix + b"%d" % i for i in range(20)]
    async with running(etcd_member.endpoints) as replica:
        await asyncio.gather(*(replica.act(look(key)) for key in keys))
        await etcd.transact(txn.txn([], [txn.put(keys[7], b"new")]), idempotent=True)
        found = await asyncio.gather(*(replica.act(look(key)) for key in keys))
        assert [i for i, value in enumerate(found) if value == b"new"] == [7]
        assert sum(entry.op == "op" for entry in await replica.records()) == 40


async def test_a_refusal_of_a_known_caller_is_recorded_and_has_no_effect(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    def refuse(view: View) -> None:
        view.get(prefix + b"a")
        view.put(prefix + b"b", b"effect")
        raise PermissionDenied

    async with running(etcd_member.endpoints) as replica:
        with pytest.raises(PermissionDenied):
            await replica.act(refuse)
        assert await etcd.get(prefix + b"b") is None
        (entry,) = await replica.records()
        assert (entry.outcome, entry.reason, entry.accessor) == ("refused", "PERMISSION_DENIED", "me")


async def test_a_refusal_of_an_unknown_caller_leaves_no_record_and_rests_on_fresh_facts(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    def authenticate(view: View) -> str:
        if view.get(prefix + b"token").value is None:
            raise Unauthenticated
        return "in"

    async with running(etcd_member.endpoints) as replica:
        with pytest.raises(Unauthenticated):
            await replica.act(authenticate, accessor="")
        assert await replica.records() == []
        await etcd.transact(txn.txn([], [txn.put(prefix + b"token", b"")]), idempotent=True)
        assert await replica.act(authenticate, accessor="") == "in"


async def test_a_write_and_a_read_of_one_key_never_share_a_batch(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    key = prefix + b"k"
    async with running(etcd_member.endpoints) as replica:
        acts = [replica.act(increment(key) if i % 3 == 0 else look(key), seconds=30) for i in range(60)]
        await asyncio.gather(*acts)
        assert await replica.act(look(key)) == b"20"


async def test_a_put_and_a_ranged_read_over_it_do_not_meet_in_one_transaction(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    def fetch(view: View) -> None:
        view.fetch(prefix, keyspace.prefix_end(prefix))

    async with running(etcd_member.endpoints) as replica:
        work = [Work(fetch, None, time.monotonic() + 20) for _ in range(10)]
        outcomes, _ = await asyncio.gather(
            asyncio.gather(*(replica.pipeline.submit(one) for one in work)),
            asyncio.gather(*(replica.act(increment(prefix + b"%d" % i), seconds=20) for i in range(10))),
        )
        assert all(len(outcome.rows) <= 10 for outcome in outcomes)
        last = await replica.pipeline.submit(Work(fetch, None, time.monotonic() + 10))
        assert [row.value for row in last.rows] == [b"1"] * 10


async def test_a_value_too_large_for_etcd_fails_alone(etcd_member: EtcdCluster, prefix: bytes) -> None:
    def huge(view: View) -> None:
        view.put(prefix + b"huge", b"x" * (3 << 20))

    async with running(etcd_member.endpoints) as replica:
        results = await asyncio.gather(
            replica.act(huge),
            *(replica.act(increment(prefix + b"%d" % i)) for i in range(5)),
            return_exceptions=True,
        )
        assert isinstance(results[0], TooLarge)
        assert results[1:] == [1] * 5


async def test_a_thousand_writes_at_once_are_split_into_batches_etcd_takes(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    async with running(etcd_member.endpoints) as replica:
        acts = [replica.act(increment(prefix + b"%d" % i), seconds=60) for i in range(1000)]
        assert await asyncio.gather(*acts) == [1] * 1000
        assert len(await replica.records()) == 1000


async def test_a_lost_answer_is_looked_up_and_the_write_applied_once(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy, running([proxy.endpoint]) as replica:
        key = prefix + b"counter"
        assert await replica.act(increment(key)) == 1
        proxy.hold(up=False, down=True)  # the request arrives, its answer does not
        act = asyncio.create_task(replica.act(increment(key), seconds=20))
        while (row := await etcd.get(key)) is None or row.value != b"2":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        await proxy.cut()
        proxy.release()
        assert await act == 2
        assert await replica.act(increment(key)) == 3
        assert len(await replica.records()) == 3


async def test_a_transaction_that_arrives_after_its_own_retry_does_nothing(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    """The first attempt is kept back on the wire, the retry lands by another way, then the first arrives."""
    direct = etcd_member.endpoints[0]
    async with TcpProxy(direct) as slow, running([slow.endpoint, direct]) as replica:
        key = prefix + b"counter"
        for expected in (1, 2):
            assert await replica.act(increment(key)) == expected
        slow.hold(up=True, down=False)
        for expected in (3, 4, 5):
            assert await replica.act(increment(key), seconds=20) == expected
        assert slow.held.is_set()  # the late one really is on its way
        slow.release()
        await asyncio.sleep(0.5)
        row = await etcd.get(key)
        assert row is not None
        assert row.value == b"5"
        assert await replica.act(increment(key)) == 6
        assert len(await replica.records()) == 6


async def test_without_etcd_a_read_is_refused_and_a_sent_write_is_of_unknown_outcome_in_time(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy, running([proxy.endpoint]) as replica:
        key = prefix + b"k"
        assert await replica.act(increment(key)) == 1
        proxy.hold()
        started = time.monotonic()
        with pytest.raises(UnknownOutcome):
            await replica.act(increment(key), seconds=1.0)
        with pytest.raises(NoQuorum):
            await replica.act(look(key), seconds=1.0)
        assert time.monotonic() - started < 10
        await proxy.cut()
        proxy.release()
        found = await replica.act(increment(key), seconds=20)
        assert found in {2, 3}
        row = await etcd.get(key)
        assert row is not None
        assert int(row.value) == found


async def test_when_the_batchs_revision_is_compacted_the_outcome_is_unknown_never_a_redo(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy, running([proxy.endpoint]) as replica:
        key = prefix + b"counter"
        assert await replica.act(increment(key)) == 1
        proxy.hold(up=False, down=True)
        act = asyncio.create_task(replica.act(increment(key), seconds=20))
        while (row := await etcd.get(key)) is None or row.value != b"2":
            await asyncio.sleep(0.01)
        later = await etcd.transact(txn.txn([], [txn.put(prefix + b"x", b"")]), idempotent=True)
        await etcd.compact(later.header.revision)
        await proxy.cut()
        proxy.release()
        with pytest.raises(UnknownOutcome):
            await act
        row = await etcd.get(key)
        assert row is not None
        assert row.value == b"2"
        assert await replica.act(increment(key), seconds=20) == 3


async def test_a_decision_that_fails_by_a_defect_fails_alone(etcd_member: EtcdCluster, prefix: bytes) -> None:
    def broken(view: View) -> None:
        raise ZeroDivisionError

    async with running(etcd_member.endpoints) as replica:
        results = await asyncio.gather(
            replica.act(broken), replica.act(increment(prefix + b"a")), return_exceptions=True
        )
        assert isinstance(results[0], StrongBoxError)
        assert results[0].reason == "INTERNAL"
        assert results[1] == 1


async def test_a_record_nobody_can_read_is_read_again_and_fails_no_request_once_it_is_gone(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    def parse(view: View) -> int:
        return int(view.get(prefix + b"number").value or b"0")

    async with running(etcd_member.endpoints) as replica:
        await etcd.transact(txn.txn([], [txn.put(prefix + b"number", b"junk")]), idempotent=True)
        with pytest.raises(Internal):
            await replica.act(parse)
        await etcd.transact(txn.txn([], [txn.put(prefix + b"number", b"7")]), idempotent=True)
        assert await replica.act(parse) == 7


@pytest.mark.parametrize(("reads", "decided"), [(20, True), (40, False)])
async def test_a_decision_may_ask_for_one_key_after_the_other_so_many_times_and_spoils_no_other(
    etcd_member: EtcdCluster, prefix: bytes, reads: int, *, decided: bool
) -> None:
    """A cold memory: what was read says what is to be read next. Others begin and end meanwhile."""
    async with running(etcd_member.endpoints) as replica:

        def chain(view: View) -> int:
            return sum(view.get(prefix + b"%03d" % number).mod_revision for number in range(reads))

        def write(number: int) -> Callable[[View], None]:
            return lambda view: view.put(prefix + b"own%d" % number, b"x")

        asked = asyncio.gather(replica.act(chain), return_exceptions=True)
        others = await asyncio.gather(*(replica.act(write(number)) for number in range(20)))
        (told,) = await asked
        assert others == [None] * 20
        assert told == 0 if decided else isinstance(told, Internal)


async def test_past_the_outboxs_bound_audited_work_is_refused_and_upkeep_still_taken(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    async with running(etcd_member.endpoints) as replica:
        replica.outbox.bound = Bound(own=3)
        for _ in range(3):
            await replica.act(increment(prefix + b"k"))
        with pytest.raises(Overloaded, match="outbox"):
            await replica.act(increment(prefix + b"k"))
        draft = Draft(op="op", path="", request_id="", client="")
        work = Work(increment(prefix + b"k"), draft, time.monotonic() + 10, always=True)
        assert (await replica.pipeline.submit(work)).value == 4


async def test_only_a_transaction_whose_decision_found_the_cluster_unsealed_is_a_proof_of_it(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    key = prefix + b"state"
    async with running(etcd_member.endpoints) as replica:

        def unsealed(view: View) -> None:
            view.get(key)
            view.found_unsealed()

        def refused(view: View) -> None:
            unsealed(view)
            raise PermissionDenied

        proved = proof.begin()
        await replica.act(lambda view: view.get(key))
        with pytest.raises(PermissionDenied):
            await replica.act(refused)
        assert proved.since is None
        sending = time.monotonic()
        await replica.act(unsealed)
        first = proved.since
        assert first is not None
        assert sending <= first <= time.monotonic()
        # The state that is remembered has changed: what is proved is proved by the second transaction.
        await replica.etcd.transact(txn.txn([], [txn.put(key, b"again")]))
        changed = time.monotonic()
        await replica.act(unsealed)
        assert proved.since is not None
        assert proved.since >= changed
        later = proved.since
        await replica.act(lambda view: view.get(key))
        assert proved.since == later
