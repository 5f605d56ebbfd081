"""Terms follow each other, fences never meet, and a deposed holder that does not know it changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from strongbox.store.duties import election
from strongbox.store.duties.election import Deposed, Duty, Holder, Term
from strongbox.store.duties.session import Session
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.support.etcd import EtcdCluster
from tests.support.proxy import TcpProxy

_PATIENCE = 30.0


class Candidate:
    """One replica: a session, a duty, and the terms it served."""

    def __init__(self, etcd: Etcd, prefix: bytes, node: str) -> None:
        self.etcd = etcd
        self.session = Session(etcd, prefix + b"nodes/" + node.encode(), lambda: b"", 1)
        self.duty = Duty(etcd, self.session, prefix + b"duty", node)
        self.terms: list[Term] = []
        self.serving = asyncio.Event()
        self.running: asyncio.Task[None] | None = None

    async def start(self, work: Callable[[Term], Awaitable[None]] | None = None) -> None:
        """Stand for office until stopped; `work` runs in each term, then the term goes on."""

        async def serve(term: Term) -> None:
            self.terms.append(term)
            self.serving.set()
            try:
                if work:
                    await work(term)
                await asyncio.Event().wait()
            finally:
                self.serving.clear()

        await self.session.start()
        self.running = asyncio.create_task(self.duty.run(serve))

    async def stop(self, *, close: bool = True) -> None:
        """Stop standing (resigning), then close the session."""
        if self.running:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        if close:
            await self.session.close()

    async def in_office(self) -> Term:
        """The term, once there is one."""
        await asyncio.wait_for(self.serving.wait(), _PATIENCE)
        return self.terms[-1]


@asynccontextmanager
async def candidates(prefix: bytes, *clients: Etcd) -> AsyncIterator[list[Candidate]]:
    """One candidate for each client, stopped at the end."""
    several = [Candidate(etcd, prefix, f"node-{i + 1}") for i, etcd in enumerate(clients)]
    try:
        yield several
    finally:
        await asyncio.gather(*(one.stop() for one in several))


async def first_in_office(several: list[Candidate]) -> Candidate:
    """Whoever gets in first."""
    async with asyncio.timeout(_PATIENCE):
        while not (serving := [one for one in several if one.serving.is_set()]):
            await asyncio.sleep(0.01)
    return serving[0]


async def test_of_three_candidates_one_serves_and_the_holder_can_be_looked_up(
    etcd: Etcd, prefix: bytes
) -> None:
    async with candidates(prefix, etcd, etcd, etcd) as three:
        assert await three[0].duty.holder() is None
        await asyncio.gather(*(one.start() for one in three))
        elected = await first_in_office(three)
        await asyncio.sleep(1.5)
        assert [one for one in three if one.serving.is_set()] == [elected]
        term = elected.terms[0]
        row = await etcd.get(prefix + b"duty")
        assert row is not None
        assert row.mod_revision == term.fence
        holder = await three[1].duty.holder()
        assert holder is not None
        assert holder.term == term.number == 1


async def test_resigning_hands_over_at_once_and_terms_count_up(etcd: Etcd, prefix: bytes) -> None:
    async with candidates(prefix, etcd, etcd) as (one, two):
        await one.start()
        first = await one.in_office()
        await two.start()
        await asyncio.sleep(0.5)
        assert not two.serving.is_set()
        await one.stop(close=False)
        second = await two.in_office()
        assert second.number == first.number + 1
        assert second.fence > first.fence
        assert await two.duty.holder() == Holder("node-2", 2)


async def test_a_holder_that_is_cut_off_is_stopped_replaced_and_can_write_nothing_more(
    etcd_member: EtcdCluster, etcd: Etcd, prefix: bytes
) -> None:
    async with TcpProxy(etcd_member.endpoints[0]) as proxy:
        remote = Etcd([proxy.endpoint])
        async with candidates(prefix, remote, etcd) as (one, two):
            await one.start()
            old = await one.in_office()
            await two.start()
            proxy.hold()
            new = await two.in_office()
            assert not one.serving.is_set(), "the work went on beside the successor's"
            assert new.fence > old.fence
            proxy.release()
            write = txn.txn([old.compare()], [txn.put(prefix + b"data", b"old")])
            late = await remote.transact(write, deadline=time.monotonic() + 10, idempotent=True)
            assert not late.succeeded
            assert await etcd.get(prefix + b"data") is None
        await remote.close()


async def test_a_deleted_election_key_deposes_the_holder_who_may_win_again_with_another_fence(
    etcd: Etcd, prefix: bytes
) -> None:
    async with candidates(prefix, etcd) as (one,):
        await one.start()
        first = await one.in_office()
        await etcd.transact(txn.txn([], [txn.delete(prefix + b"duty")]))
        async with asyncio.timeout(_PATIENCE):
            while len(one.terms) < 2:
                await asyncio.sleep(0.01)
        assert one.terms[1].number == 2
        assert one.terms[1].fence > first.fence


async def test_work_that_fails_gives_the_office_up(etcd: Etcd, prefix: bytes) -> None:
    async def fail(_: Term) -> None:
        raise ValueError("a defect of the duty")

    async with candidates(prefix, etcd, etcd) as (one, two):
        await one.start(fail)
        await asyncio.sleep(0.3)
        await two.start()
        await two.in_office()
        assert one.terms


async def test_fences_never_meet_while_holders_are_killed_and_members_die(
    etcd_cluster: EtcdCluster, prefix: bytes
) -> None:
    """Every write compares its fence: the log shows one holder after another, never two interleaved."""
    clients = [Etcd(etcd_cluster.endpoints) for _ in range(3)]
    committed: list[tuple[int, int]] = []  # (revision, term)

    def busy(etcd: Etcd) -> Callable[[Term], Awaitable[None]]:
        async def work(term: Term) -> None:
            while True:
                request = txn.txn([term.compare()], [txn.put(prefix + b"data", b"")])
                answer = await etcd.transact(request, deadline=time.monotonic() + 5, idempotent=True)
                if not answer.succeeded:
                    raise Deposed
                committed.append((answer.header.revision, term.number))

        return work

    async with candidates(prefix, *clients) as three:
        await asyncio.gather(*(one.start(busy(one.etcd)) for one in three))
        for round_ in range(3):
            holder = await first_in_office(three)
            await asyncio.sleep(0.2)
            lease = holder.session.lease_id
            if round_ == 1:
                etcd_cluster.members[0].kill()
            if lease:
                await clients[0].lease_revoke(lease, deadline=time.monotonic() + 10)
            await asyncio.sleep(0.5)
        await first_in_office(three)
        await asyncio.sleep(0.5)
    terms = [term for _, term in sorted(committed)]
    assert terms == sorted(terms)
    assert len(set(terms)) >= 3
    served = [term for one in three for term in one.terms]
    assert len({term.fence for term in served}) == len({term.number for term in served}) == len(served)
    for client in clients:
        await client.close()


async def test_the_duty_moves_on_when_its_holder_dies_together_with_a_member(
    etcd_cluster: EtcdCluster, prefix: bytes
) -> None:
    clients = [Etcd(etcd_cluster.endpoints[i:] + etcd_cluster.endpoints[:i]) for i in range(2)]
    async with TcpProxy(etcd_cluster.endpoints[0]) as proxy:
        doomed = Etcd([proxy.endpoint])
        async with candidates(prefix, doomed, *clients) as (one, two, three):
            await one.start()
            old = await one.in_office()
            await asyncio.gather(two.start(), three.start())
            await proxy.cut(refuse=True)
            etcd_cluster.members[0].kill()
            successor = await first_in_office([two, three])
            assert successor.terms[-1].number == old.number + 1
            await proxy.accept()
        await doomed.close()
    for client in clients:
        await client.close()


async def test_when_an_etcd_that_was_too_slow_for_everybody_is_well_again_terms_last(
    etcd_cluster: EtcdCluster, prefix: bytes
) -> None:
    """Whoever lost his session tries again and again; that must not keep etcd busy and all from standing."""
    clients = [Etcd(etcd_cluster.endpoints) for _ in range(6)]
    async with candidates(prefix, *clients) as several:
        await asyncio.gather(*(one.start() for one in several))
        await (await first_in_office(several)).in_office()
        for _ in range(12):
            for member in etcd_cluster.members:
                member.pause()
            await asyncio.sleep(0.5)  # longer than an attempt
            for member in etcd_cluster.members:
                member.resume()
            await asyncio.sleep(0.03)
        async with asyncio.timeout(_PATIENCE):
            lasted = False
            while not lasted:
                await asyncio.gather(*(one.session.current() for one in several))
                holder = await first_in_office(several)
                term = holder.terms[-1]
                await asyncio.sleep(2.5)  # more than two sessions
                lasted = holder.serving.is_set() and holder.terms[-1] == term
    for client in clients:
        await client.close()


class _Fact(NamedTuple):
    mod_revision: int


class _View:
    def __init__(self, revision: int) -> None:
        self.revision = revision

    def get(self, key: bytes, /) -> _Fact:
        assert key == b"election/x"
        return _Fact(self.revision)


def test_a_term_makes_a_decision_depend_on_its_fence() -> None:
    term = Term(3, b"election/x", 41)
    term.require(_View(41))
    for revision in (0, 40, 42):
        with pytest.raises(Deposed):
            term.require(_View(revision))
    assert term.compare() == txn.mod_is(b"election/x", 41)


async def test_each_term_is_logged_with_why_it_ended_and_a_livelock_is_seen_and_does_not_flood(
    etcd: Etcd, prefix: bytes
) -> None:
    async def give_up(term: Term) -> None:
        raise Deposed("the work believes so")

    with capture_logs() as told:
        async with candidates(prefix, etcd) as (one,):
            await one.start(give_up)
            async with asyncio.timeout(_PATIENCE):
                while len(one.terms) < 10:
                    await asyncio.sleep(0.05)
    assert [(line["event"], line["term"]) for line in told if line["event"] == "in office"] == [
        ("in office", 1)
    ]
    (over,) = [line for line in told if line["event"] == "out of office"]
    assert over["why"] == "its work met Deposed"


def test_terms_that_follow_each_other_fast_are_counted_in_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(election.time, "monotonic", lambda: now)
    told_of = election._Told("lease/reaper")
    with capture_logs() as told:
        for number in range(100):
            told_of.begun(Term(number, b"k", 1))
            told_of.ended("its work met Deposed")
            now += 0.2
    assert [(line["event"], line["log_level"]) for line in told] == [
        ("in office", "info"), ("out of office", "info"),
        ("terms of a duty follow each other fast", "warning"),
        ("in office", "info"), ("out of office", "info"),
    ]  # fmt: skip
    assert told[2]["more"] == 49


async def test_progress_is_told_to_whoever_keeps_the_duty(etcd: Etcd, prefix: bytes) -> None:
    progress = asyncio.Event()
    session = Session(etcd, prefix + b"nodes/one", lambda: b"", 1)
    duty = Duty(etcd, session, prefix + b"duty", "node-1", progress.set)

    async def work(term: Term) -> None:
        term.progress()
        await asyncio.Event().wait()

    await session.start()
    running = asyncio.create_task(duty.run(work))
    await asyncio.wait_for(progress.wait(), _PATIENCE)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await session.close()
