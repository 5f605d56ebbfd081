"""The pipeline against real etcd: contention, batches, limits, proofs."""

from __future__ import annotations

import asyncio
import time

import pytest

from strongbox import unsealed_proof
from strongbox.audit_outbox.outbox_limit import Bound
from strongbox.errors import Overloaded, PermissionDenied, TooLarge
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.view import View
from strongbox.store.decisions.work import Work
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.strongbox.store.decisions.replicas import increment, look, running
from tests.support.etcd import EtcdCluster


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

        proved = unsealed_proof.begin()
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
