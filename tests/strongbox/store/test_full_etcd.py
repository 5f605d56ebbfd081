"""While etcd's own alarm stands: sessions tell what is so, offices are filled, who only looks is served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import SystemClock
from strongbox.errors import Overloaded
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.decisions.view import View
from strongbox.store.decisions.work import Work
from strongbox.store.duties.election import Duty, Term
from strongbox.store.duties.session import Session
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import OutOfSpace
from strongbox.store.space.admission import Room, Space
from tests.support.etcd import EtcdCluster

MIB = 1 << 20
QUOTA = 16 * MIB
KEY, OFFICE = b"/strongbox/test/there", b"/strongbox/test/office"


@pytest.fixture
async def etcd() -> AsyncIterator[Etcd]:
    with EtcdCluster(1, extra=[f"--quota-backend-bytes={QUOTA}"]) as cluster:
        client = Etcd(cluster.endpoints)
        yield client
        await client.close()


async def fill(etcd: Etcd) -> None:
    for number in range(2 * QUOTA // MIB):
        filler = txn.put(b"/filler/%d" % number, bytes(MIB))
        await etcd.transact(txn.txn([], [filler]), deadline=time.monotonic() + 10, idempotent=True)


async def full(etcd: Etcd) -> None:
    """Until the alarm stands."""
    with pytest.raises(OutOfSpace):
        await fill(etcd)
    assert await etcd.is_full()


async def submit(pipeline: Pipeline, decide: object, *, audited: bool) -> object:
    draft = Draft(op="op", path="p", request_id="r", client="c", accessor="me") if audited else None
    work = Work(decide, draft, time.monotonic() + 10)  # type: ignore[arg-type]
    return (await pipeline.submit(work)).value


def look(view: View) -> bytes | None:
    return view.get(KEY).value


async def test_a_session_goes_on_telling_and_an_office_is_filled(etcd: Etcd) -> None:
    told = [b"before"]
    session = Session(etcd, KEY, lambda: told[0], 5)
    await session.start()
    await session.current()
    await full(etcd)
    told[0] = b"sealed meanwhile"
    session.write_now()
    serving = asyncio.Event()

    async def work(_: Term) -> None:
        serving.set()
        await asyncio.Event().wait()

    holding = asyncio.create_task(Duty(etcd, session, OFFICE, "node-1").run(work))
    try:
        await asyncio.wait_for(serving.wait(), 20)
        async with asyncio.timeout(20):
            while (row := await etcd.get(KEY)) is None or row.value != told[0]:
                await asyncio.sleep(0.05)
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        await session.close()


async def test_who_leaves_nothing_behind_is_served_at_any_time(etcd: Etcd) -> None:
    """A step of a revocation that only looks was refused when the revocation had taken effect."""
    pipeline = Pipeline(etcd, Memory(), Outbox("kv"), SystemClock(), Space(QUOTA))
    await pipeline.start()
    try:
        revision = (await etcd.range(b"/none")).revision
        nearly = Room(revision, int(0.9 * QUOTA), int(0.9 * QUOTA), QUOTA, "test").pack()
        await etcd.transact(txn.txn([], [txn.put(keyspace.ROOM, nearly)]), idempotent=True)
        assert await submit(pipeline, look, audited=False) is None
        with pytest.raises(Overloaded):
            await submit(pipeline, look, audited=True)
        await full(etcd)
        for _ in range(2):
            assert await submit(pipeline, look, audited=False) is None
    finally:
        await pipeline.close()


async def test_a_process_that_is_refused_nothing_puts_what_it_likes_even_then(
    etcd: Etcd,
) -> None:
    """The seal service: a cluster that is sealed needs unsealing before anything can be removed."""
    pipeline = Pipeline(etcd, Memory(), Outbox("seal"), SystemClock(), Space())
    await pipeline.start()
    try:
        await full(etcd)
        await submit(pipeline, lambda view: view.put(KEY, b"a share"), audited=True)
        row = await etcd.get(KEY)
        assert row is not None
        assert row.value == b"a share"
    finally:
        await pipeline.close()
