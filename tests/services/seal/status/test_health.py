"""Health under a crowd and without etcd: few looks for many questions, and nothing said that is not known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from services.seal import cluster_overview
from services.seal.custody.held_keys import Custody
from services.seal.status import duty_status as judging
from services.seal.status.health import Health
from services.seal.status.late_duty_alarm import Alarm
from services.seal.status.shared_overview import EVERY, Looks
from strongbox.clock import SystemClock
from strongbox.process.duties import Bounds
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.seal.v1 import seal_service_pb2_grpc as rpc
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import EtcdError, Unavailable
from tests.services.seal.nodes import SealNodes
from tests.services.seal.test_processes import put
from tests.support.etcd import EtcdCluster

CROWD = 3000


class CountingEtcd:
    """A real client; `looks` are the transactions asked for, `fails` has them fail."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self.looks = 0
        self.fails = False

    async def transact(self, *args: Any, **more: Any) -> Any:
        self.looks += 1
        if self.fails:
            raise Unavailable("etcd is away")
        return await self._etcd.transact(*args, **more)


@pytest.fixture
async def etcd(etcd_member: EtcdCluster) -> AsyncIterator[CountingEtcd]:
    client = Etcd(etcd_member.endpoints)
    yield CountingEtcd(client)
    await client.close()


def _health(etcd: CountingEtcd) -> Health:
    return Health(cast(Etcd, etcd), Custody(SystemClock()), "node-1", SystemClock())


async def test_a_crowd_that_asks_at_once_costs_etcd_one_look(etcd: CountingEtcd) -> None:
    health = _health(etcd)
    answers = await asyncio.gather(*(health.health() for _ in range(CROWD)))
    assert etcd.looks == 1
    assert len(answers) == CROWD


async def test_who_goes_on_asking_gets_ten_looks_a_second_at_most(etcd: CountingEtcd) -> None:
    health, began = _health(etcd), time.monotonic()

    async def ask_on() -> None:
        while time.monotonic() < began + 1.0:
            await health.health()

    await asyncio.gather(*(ask_on() for _ in range(50)))
    assert etcd.looks <= (time.monotonic() - began) / EVERY + 1


async def test_no_answer_is_older_than_its_question(etcd: CountingEtcd) -> None:
    looks = Looks(cast(Etcd, etcd))
    first = await looks.take()
    several = await asyncio.gather(*(looks.take() for _ in range(10)))
    assert {one is first for one in several} == {False}
    assert len({id(one) for one in several}) == 1
    assert etcd.looks == 2


async def test_a_failure_is_shared_and_one_who_leaves_takes_nobodys_answer_along(etcd: CountingEtcd) -> None:
    looks = Looks(cast(Etcd, etcd))
    etcd.fails = True
    failures = await asyncio.gather(*(looks.take() for _ in range(10)), return_exceptions=True)
    assert all(isinstance(one, EtcdError) for one in failures)
    assert etcd.looks == 1
    etcd.fails = False
    leaving, staying = asyncio.create_task(looks.take()), asyncio.create_task(looks.take())
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).revision


async def test_what_etcd_does_not_say_is_absent_and_never_a_default(etcd: CountingEtcd) -> None:
    health = _health(etcd)
    etcd.fails = True
    told = await health.health()
    for field in ("initialized", "leader", "term"):
        assert not told.HasField(field), field
    assert (told.sealed, told.ready, told.node_id) == (True, False, "node-1")
    (own,) = told.nodes
    assert (own.id, own.live, own.sealed) == ("node-1", True, True)
    assert not any(duty.HasField("holder") or duty.HasField("late") for duty in told.duties.values())
    assert not dict(told.leaders)
    etcd.fails = False
    told = await health.health()
    assert (told.HasField("initialized"), told.initialized) == (True, False)
    assert (told.HasField("leader"), told.leader, told.term) == (True, "", 0)


def test_a_cluster_that_was_seen_is_not_called_uninitialised_when_etcd_is_away() -> None:
    with SealNodes(1) as nodes:
        nodes.init()
        assert nodes[0].health().initialized
        put(nodes, keyspace.election("audit", "audit"), b"7 node-1")
        assert nodes[0].health().leader == "node-1"
        nodes.etcd.members[0].pause()
        try:
            told = nodes[0].health()
            assert told.initialized
            assert not told.HasField("leader")
            nodes[0].kill()
            nodes[0].start()  # it has never seen etcd
            nodes.wait(lambda: nodes[0].is_sealed() is not None)
            assert not nodes[0].health().HasField("initialized")
        finally:
            nodes.etcd.members[0].resume()
        nodes.wait(lambda: nodes[0].health().initialized)


JUNK = (
    (b"election/audit/audit", b"x"),
    (b"election/lease/reaper", b"99999999999999999999 node-1"),
    (b"election/lease/follower/term", b""),
    (b"election/junk", b"1 node-1"),
    (b"election/\xff/\xfe", b"1 node-1"),
    (b"cluster/nodes/\xff\xfe", b"{}"),
    (b"cluster/nodes/kv/node-9", b"[" * 100_000),
    (b"cluster/nodes/audit/node-1", b'{"trouble": "\\ud800", "duties": {"audit": 99999999999999999999}}'),
    (b"seal/replicas/node-8", b"\xff"),
)


async def test_rows_that_nobody_can_read_make_no_node_unready() -> None:
    with SealNodes(1) as nodes:
        await asyncio.to_thread(_unseal_with_services, nodes)
        for key, value in JUNK:
            await asyncio.to_thread(put, nodes, keyspace.ROOT + key, value)
        await asyncio.to_thread(put, nodes, keyspace.election("auth", "tidy"), b"9 node-1")
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        health = Health(etcd, cast(Custody, SimpleNamespace(generation=2)), "node-1", SystemClock())
        told = await health.health()
        assert told.ready
        assert told.duties["tidy"].holder == "node-1", "what can be read is told"
        await health.require_ready()
        await etcd.close()


async def test_duties_are_judged_when_etcd_has_gone_back_to_a_backup(
    etcd: CountingEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = _health(etcd)
    await health.health()
    now = await cluster_overview.take(cast(Etcd, etcd))

    async def restored(_: Etcd) -> cluster_overview.Snapshot:
        moment, holders = time.monotonic(), {"audit": ("node-7", 3)}
        return replace(now, revision=now.revision - 1, began=moment, holders=holders)

    monkeypatch.setattr(cluster_overview, "take", restored)
    told = await health.health()
    assert told.duties["audit"].holder == "node-7"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Duties that are late at once."""
    monkeypatch.setattr(judging, "DUTIES", {
        "reaper": Bounds("lease", 0.05, for_safety=True), "tidy": Bounds("auth", 0.05),
    })  # fmt: skip


@pytest.mark.usefixtures("hasty")
async def test_a_late_duty_is_told_in_health_and_log_and_makes_the_node_unready() -> None:
    with SealNodes(1) as nodes:
        await asyncio.to_thread(_unseal_with_services, nodes)
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        custody = cast(Custody, SimpleNamespace(generation=2))
        alarm = Alarm()
        health = Health(etcd, custody, "node-1", SystemClock(), alarm=alarm)
        told = await health.health()
        assert (told.ready, told.duties["reaper"].holder, told.duties["reaper"].late) == (True, "", False)
        await asyncio.sleep(2 * EVERY)
        told = await health.health()
        assert told.duties["reaper"].late
        assert not told.duties["reaper"].HasField("last_success_at")
        assert not told.ready
        with pytest.raises(Exception, match="reaper"):
            await health.require_ready()
        await asyncio.to_thread(put, nodes, keyspace.node("lease", "node-1"), b'{"duties": {"reaper": 1500}}')
        await asyncio.to_thread(put, nodes, keyspace.election("lease", "reaper"), b"9 node-1")
        told = await health.health()
        assert told.ready, "tidy is late, but no promise to clients depends on it"
        assert told.duties["tidy"].late
        assert (told.duties["reaper"].holder, told.duties["reaper"].late) == ("node-1", False)
        assert told.duties["reaper"].last_success_at.ToMilliseconds() == 1500
        await etcd.close()


def _unseal_with_services(nodes: SealNodes) -> None:
    made = nodes.init()
    for share in made.shares[:2]:
        nodes[0].unseal(share)
    nodes.wait(lambda: nodes[0].is_sealed() is False)
    for service in ("kv", "auth"):
        put(nodes, keyspace.node(service, "node-1"), b'{"unsealed": true}')


async def test_thousands_of_questions_take_nothing_from_the_proof() -> None:
    """Three thousand at a time, for longer than a proof lasts: keys are used all the time."""
    with SealNodes(1) as nodes:
        made = await asyncio.to_thread(nodes.init)
        for share in made.shares[:2]:
            await asyncio.to_thread(nodes[0].unseal, share)
        await asyncio.to_thread(nodes.wait, lambda: nodes[0].is_sealed() is False)
        files = nodes.certificates.operator
        credentials = grpc.ssl_channel_credentials(
            nodes.certificates.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
        )
        options = (("grpc.ssl_target_name_override", "seal.strongbox.internal"),)
        async with grpc.aio.secure_channel(nodes[0].address, credentials, options=options) as channel:
            stub = rpc.SealServiceStub(channel)
            end = time.monotonic() + 5
            answered = 0
            while time.monotonic() < end:
                several = (stub.GetHealth(pb.GetHealthRequest(), timeout=20) for _ in range(CROWD))
                answers = await asyncio.gather(*several, return_exceptions=True)
                answered += sum(isinstance(one, pb.GetHealthResponse) for one in answers)
        assert answered >= CROWD / 10, "of a crowd, most meet their deadline"
        log = nodes[0].log.read_text()
        for complaint in ("the seal state is not known", "the session is not held", "the keys are wiped"):
            assert complaint not in log
        assert nodes[0].is_sealed() is False
