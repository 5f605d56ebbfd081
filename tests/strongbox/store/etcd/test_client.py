"""The etcd client against real members that are killed, frozen, cut off and slow."""

from __future__ import annotations

import asyncio
import secrets
import time

import grpc
import pytest

from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.endpoints import Options, Ring
from strongbox.store.etcd.errors import (
    Compacted,
    LeaseGone,
    OutcomeUnknown,
    OutOfSpace,
    Refused,
    TooLarge,
    Unavailable,
    classify,
)
from tests.support.etcd import EtcdCluster, free_ports
from tests.support.proxy import TcpProxy


def soon(seconds: float = 10.0) -> float:
    """A generous deadline."""
    return time.monotonic() + seconds


async def put(etcd: Etcd, key: bytes, value: bytes) -> int:
    """Write blindly; the revision."""
    answer = await etcd.transact(txn.txn([], [txn.put(key, value)]), deadline=soon(), idempotent=True)
    return int(answer.header.revision)


async def test_a_key_is_written_read_and_listed_in_order(etcd: Etcd, prefix: bytes) -> None:
    assert await etcd.get(prefix + b"a") is None
    revision = await put(etcd, prefix + b"b", b"2")
    await put(etcd, prefix + b"a", b"1")
    row = await etcd.get(prefix + b"b")
    assert row is not None
    assert (row.value, row.mod_revision, row.create_revision) == (b"2", revision, revision)
    reply = await etcd.range(prefix, txn.prefix_end(prefix), limit=1)
    assert ([r.key for r in reply.rows], reply.more) == ([prefix + b"a"], True)
    old = await etcd.range(prefix, txn.prefix_end(prefix), revision=revision)
    assert [r.key for r in old.rows] == [prefix + b"b"]


async def test_compares_decide_which_branch_runs_nested_ones_too(etcd: Etcd, prefix: bytes) -> None:
    a, b = prefix + b"a", prefix + b"b"
    revision = await put(etcd, a, b"0005")
    part = txn.nested([txn.value_less(a, b"0005")], [txn.put(b, b"wrong")], [txn.range_(a)])
    answer = await etcd.transact(txn.txn([txn.mod_is(a, revision)], [part]))
    assert answer.succeeded
    assert not answer.responses[0].response_txn.succeeded
    assert await etcd.get(b) is None
    again = await etcd.transact(txn.txn([txn.create_is(a, 0)], [txn.delete(a)]))
    assert not again.succeeded


async def test_each_refusal_has_its_own_exception(etcd: Etcd, prefix: bytes) -> None:
    key = prefix + b"a"
    with pytest.raises(LeaseGone):
        await etcd.transact(txn.txn([], [txn.put(key, b"", lease=12345)]))
    with pytest.raises(TooLarge):
        await etcd.transact(txn.txn([], [txn.put(key, b"x" * (3 << 20))]))
    with pytest.raises(TooLarge):
        await etcd.transact(txn.txn([], [txn.put(prefix + str(i).encode(), b"") for i in range(1100)]))
    with pytest.raises(Refused):
        await etcd.transact(txn.txn([], [txn.put(key, b"1"), txn.put(key, b"2")]))
    assert (await etcd.range(prefix, txn.prefix_end(prefix))).rows == ()


async def test_a_read_at_a_compacted_revision_says_so_and_compacting_twice_is_fine(
    etcd: Etcd, prefix: bytes
) -> None:
    first = await put(etcd, prefix, b"1")
    last = await put(etcd, prefix, b"2")
    await etcd.compact(last)
    await etcd.compact(last)
    with pytest.raises(Compacted):
        await etcd.range(prefix, revision=first)
    with pytest.raises(Refused):
        await etcd.compact(last + 1_000_000)


async def test_a_lease_is_granted_renewed_and_revoked_and_each_may_be_repeated(
    etcd: Etcd, prefix: bytes
) -> None:
    lease = secrets.randbits(62) + 1
    assert await etcd.lease_grant(lease, 5) == 5
    assert await etcd.lease_grant(lease, 5) == 5
    await etcd.transact(txn.txn([], [txn.put(prefix, b"here", lease)]))
    assert await etcd.keepalive_once(lease) == 5
    await etcd.lease_revoke(lease)
    await etcd.lease_revoke(lease)
    assert await etcd.get(prefix) is None
    assert await etcd.keepalive_once(lease) == 0


async def test_no_call_fails_while_the_member_in_use_is_killed(
    etcd_cluster: EtcdCluster, three: Etcd, prefix: bytes
) -> None:
    async def write(name: int) -> int:
        revision = 0
        for i in range(60):
            revision = await put(three, prefix + f"{name}-{i}".encode(), b"x")
        return revision

    writers = [asyncio.create_task(write(name)) for name in range(4)]
    await asyncio.sleep(0.1)
    victim = etcd_cluster.endpoints.index(three.ring.pick().address)
    etcd_cluster.members[victim].kill()
    await asyncio.gather(*writers)
    assert len((await three.range(prefix, txn.prefix_end(prefix))).rows) == 240
    assert three.ring.pick().address != etcd_cluster.endpoints[victim]


async def test_a_frozen_member_costs_one_attempt_and_is_then_avoided(
    etcd_cluster: EtcdCluster, three: Etcd, prefix: bytes
) -> None:
    await put(three, prefix, b"before")
    frozen = three.ring.pick()
    etcd_cluster.members[etcd_cluster.endpoints.index(frozen.address)].pause()
    row = await three.get(prefix, deadline=soon())
    assert row is not None
    assert frozen.bad_until > time.monotonic()
    attempts = [three.ring.pick().address for _ in range(5)]
    assert frozen.address not in attempts
    await put(three, prefix, b"after")


async def test_a_vanished_member_is_a_lost_answer_for_a_write_and_never_repeated_unasked(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        etcd = Etcd([proxy.endpoint, etcd_member.endpoints[0]])
        await etcd.get(prefix)
        proxy.hold()
        with pytest.raises(OutcomeUnknown):
            await etcd.transact(txn.txn([], [txn.put(prefix, b"x")]), deadline=soon())
        assert await etcd.get(prefix, deadline=soon()) is None
        assert etcd.ring.pick().address == etcd_member.endpoints[0]
        await etcd.close()


async def test_a_late_attempt_is_harmless_when_it_compares_a_key_that_it_moves(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    """The first attempt is kept back, its repetition commits, then a newer write, then the first arrives."""
    cursor, data = prefix + b"cursor", prefix + b"data"
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        etcd = Etcd([proxy.endpoint, etcd_member.endpoints[0]])
        start = await put(etcd, cursor, b"0")
        proxy.hold(down=False)
        request = txn.txn(
            [txn.mod_is(cursor, start)], [txn.put(cursor, b"1"), txn.put(data, b"old")], [txn.range_(cursor)]
        )
        answer = await etcd.transact(request, deadline=soon(), idempotent=True)
        assert answer.succeeded
        assert proxy.held.is_set()
        newer = await put(etcd, data, b"new")
        proxy.release()
        await asyncio.sleep(0.3)
        row = await etcd.get(data)
        assert row is not None
        assert (row.value, row.mod_revision) == (b"new", newer)
        await etcd.close()


async def test_the_repetition_of_a_write_whose_answer_was_lost_fails_its_compare_and_applies_nothing(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    cursor = prefix + b"cursor"
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        etcd = Etcd([proxy.endpoint, etcd_member.endpoints[0]])
        start = await put(etcd, cursor, b"0")
        proxy.hold(up=False)
        request = txn.txn([txn.mod_is(cursor, start)], [txn.put(cursor, b"1")], [txn.range_(cursor)])
        answer = await etcd.transact(request, deadline=soon(), idempotent=True)
        assert not answer.succeeded
        seen = answer.responses[0].response_range.kvs[0]
        assert (seen.value, seen.version) == (b"1", 2)
        await etcd.close()


async def test_a_late_blind_write_does_overwrite_which_is_why_it_needs_a_compare(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    """The danger that the rule above answers: without it this client, too, would lose the newer write."""
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        slow = Etcd([proxy.endpoint], options=Options(attempt=5.0))
        direct = Etcd(etcd_member.endpoints)
        await slow.get(prefix)
        proxy.hold()
        late = asyncio.create_task(put(slow, prefix, b"old"))
        await asyncio.wait_for(proxy.held.wait(), 10)
        newer = await put(direct, prefix, b"new")
        proxy.release()
        assert await late > newer
        row = await direct.get(prefix)
        assert row is not None
        assert row.value == b"old"
        await slow.close()
        await direct.close()


async def test_an_etcd_that_takes_longer_than_an_attempt_is_waited_for(
    etcd_member: EtcdCluster, prefix: bytes
) -> None:
    """A busy disk: every member answers, each later than a member that serves has to at first."""
    async with TcpProxy(etcd_member.endpoints[0]) as one, TcpProxy(etcd_member.endpoints[0]) as other:
        etcd = Etcd([one.endpoint, other.endpoint])
        start = await put(etcd, prefix, b"0")
        one.delay = other.delay = 0.6
        request = txn.txn([txn.mod_is(prefix, start)], [txn.put(prefix, b"1")], [txn.range_(prefix)])
        first = await etcd.transact(request, deadline=soon(4.0), idempotent=True)
        assert first.succeeded or first.responses[0].response_range.kvs[0].value == b"1"
        again = time.monotonic()
        assert await etcd.get(prefix, deadline=soon(4.0)) is not None
        for value in b"2", b"3":
            again = time.monotonic()
            await etcd.transact(txn.txn([], [txn.put(prefix, value)]), deadline=soon(4.0))
        assert time.monotonic() - again < 2.0  # what it took was learned: no attempt was given up
        one.delay = other.delay = 0.0
        for _ in range(20):
            await put(etcd, prefix, b"quick")
        assert etcd.caller.patience.attempt(reads=False) == etcd.options.attempt
        await etcd.close()


async def test_a_cut_connection_is_dialled_again(etcd_member: EtcdCluster, prefix: bytes) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        etcd = Etcd([proxy.endpoint])
        await put(etcd, prefix, b"1")
        await proxy.cut(refuse=True)
        with pytest.raises(Unavailable):
            await etcd.get(prefix, deadline=soon(0.5))
        await proxy.accept()
        await put(etcd, prefix, b"2")
        await etcd.close()


async def test_a_write_that_nobody_could_have_received_is_surely_not_applied() -> None:
    etcd = Etcd([f"127.0.0.1:{port}" for port in free_ports(2)])
    with pytest.raises(Unavailable):
        await etcd.transact(txn.txn([], [txn.put(b"a", b"")]), deadline=soon(1.0))
    await etcd.close()


async def test_a_closed_client_refuses(etcd_member: EtcdCluster) -> None:
    etcd = Etcd(etcd_member.endpoints)
    await etcd.close()
    with pytest.raises(Unavailable):
        await etcd.get(b"a", deadline=soon(0.5))


async def test_without_quorum_reads_and_writes_end_at_their_deadline(
    etcd_cluster: EtcdCluster, three: Etcd, prefix: bytes
) -> None:
    await put(three, prefix, b"1")
    for member in etcd_cluster.members[:2]:
        member.kill()
    with pytest.raises(Unavailable):
        await three.get(prefix, deadline=soon(1.5))
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await three.transact(txn.txn([], [txn.put(prefix, b"2")]), deadline=soon(1.5), idempotent=True)
    etcd_cluster.restart(0, wait=False)
    row = await three.get(prefix, deadline=soon(30))
    assert row is not None


async def fill(etcd: Etcd, prefix: bytes) -> None:
    for i in range(40):
        await put(etcd, prefix + str(i % 2).encode(), bytes([i]) * (1 << 20))


async def test_a_full_store_is_emptied_by_compacting_defragmenting_and_disarming(prefix: bytes) -> None:
    with EtcdCluster(1, extra=["--quota-backend-bytes=8388608"]) as cluster:
        etcd = Etcd(cluster.endpoints)
        with pytest.raises(OutOfSpace):
            await fill(etcd, prefix)
        with pytest.raises(OutOfSpace):
            await put(etcd, prefix, b"x" * 1000)
        assert await etcd.get(prefix) is None
        await etcd.compact((await etcd.status()).revision)
        before = (await etcd.status(cluster.endpoints[0])).db_size
        await etcd.defragment(cluster.endpoints[0])
        assert (await etcd.status(cluster.endpoints[0])).db_size < before
        assert await etcd.disarm() == 1
        await put(etcd, prefix, b"room again")
        await etcd.close()


@pytest.mark.parametrize(
    ("code", "details", "kind", "maybe"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: refused", Unavailable, False),
        ("UNAVAILABLE", "etcdserver: no leader", Unavailable, False),
        ("UNAVAILABLE", "Socket closed", OutcomeUnknown, True),
        ("UNAVAILABLE", "etcdserver: request timed out", OutcomeUnknown, True),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", OutcomeUnknown, True),
        ("UNKNOWN", "context deadline exceeded", OutcomeUnknown, True),
        ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max", OutcomeUnknown, True),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", OutOfSpace, True),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Unavailable, False),
    ],
)
def test_whatever_is_not_surely_unapplied_may_have_been_applied(
    code: str, details: str, kind: type[Exception], maybe: bool
) -> None:
    error = classify(grpc.StatusCode[code], details)
    assert type(error) is kind
    assert error.maybe_applied is maybe


async def test_the_ring_keeps_to_one_member_and_comes_back_when_all_are_bad() -> None:
    ring = Ring(["127.0.0.1:1", "127.0.0.1:2"], None, Options(back_off=10.0, back_off_most=20.0))
    first = ring.pick()
    assert ring.pick() is first
    started = time.monotonic()
    ring.leave(first, started)
    ring.leave(first, started)  # a call that was in flight with the first one is no second failure
    second = ring.pick()
    assert second is not first
    ring.leave(second, time.monotonic())
    assert ring.pick() is first
    first.worked(time.monotonic())
    assert ring.pick() is first
    await ring.close()


async def test_renewing_ends_in_time_although_a_stream_never_takes_the_question(etcd: Etcd) -> None:
    """A call that ended before its metadata were sent was seen to keep its writer waiting for ever."""

    class Stuck:
        async def write(self, _: object) -> None:
            await asyncio.Event().wait()

        def cancel(self) -> None:
            pass

    for member in etcd.ring.members:
        member.stream = lambda *_: lambda **__: Stuck()  # type: ignore[method-assign]
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await etcd.keepalive_once(1, deadline=started + 1.0)
    assert time.monotonic() - started < 3.0
