"""Nothing is done that cannot be recorded: refused in time, with the reason, and taken again when it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from strongbox.audit_outbox import outbox_limit
from strongbox.audit_outbox.outbox import Outbox
from strongbox.audit_outbox.outbox_limit import Bound
from strongbox.errors import NoQuorum, Overloaded, Unauthenticated
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.support.etcd import EtcdCluster

LIMIT = 5


class FixedClock:
    """A clock that stands still."""

    def now_ms(self) -> int:
        return 1_800_000_000_000


@pytest.fixture
def outbox() -> Outbox:
    """One that is full after a few records."""
    found = Outbox("kv")
    found.bound = Bound(own=LIMIT)
    return found


@pytest.fixture
async def pipeline(etcd: Etcd, outbox: Outbox) -> AsyncIterator[Pipeline]:
    """A running pipeline over it."""
    found = Pipeline(etcd, Memory(), outbox, FixedClock())
    await found.start()
    yield found
    await found.close()


def write(name: str, within: float = 5.0, *, known: bool = True, always: bool = False) -> Work[None]:
    """A write of a caller; one who is not `known` has no valid token."""

    def decide(view: View) -> None:
        assert view.draft is not None
        if not known:
            raise Unauthenticated
        view.draft.accessor = "alice"
        view.put(b"/test/" + name.encode(), b"x")

    draft = Draft("WriteSecret", "secret/a", f"request-{name}", "::1")
    return Work(decide, draft, time.monotonic() + within, always=always)


async def records(etcd: Etcd) -> int:
    """How many records wait in the outbox."""
    return len((await etcd.range(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX))).rows)


async def test_what_cannot_be_recorded_is_refused_before_its_deadline(
    member: EtcdCluster, pipeline: Pipeline
) -> None:
    await pipeline.submit(write("before"))
    member.members[0].pause()
    try:
        started = time.monotonic()
        with pytest.raises(Exception) as refusal:
            await pipeline.submit(write("meanwhile", within=1.0))
        took = time.monotonic() - started
    finally:
        member.members[0].resume()
    assert type(refusal.value).__name__ in ("NoQuorum", "UnknownOutcome")
    assert took < 1.5
    async with asyncio.timeout(20):
        while True:
            try:
                await pipeline.submit(write("after", within=1.0))
                break
            except NoQuorum:
                await asyncio.sleep(0.1)


async def test_past_the_bound_requests_are_refused_with_the_reason_and_leave_nothing(
    etcd: Etcd, pipeline: Pipeline
) -> None:
    for number in range(LIMIT):
        await pipeline.submit(write(str(number)))
    for number in range(20):
        started = time.monotonic()
        with pytest.raises(Overloaded, match="audit outbox is full"):
            await pipeline.submit(write(f"refused-{number}"))
        assert time.monotonic() - started < 0.5
        assert await etcd.get(b"/test/refused-%d" % number) is None
    assert await records(etcd) == LIMIT
    await pipeline.submit(write("unsealing", always=True))  # what opens the cluster never waits for it


async def test_when_the_outbox_is_trimmed_requests_are_taken_again(
    etcd: Etcd, outbox: Outbox, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_limit, "PERIOD", 0.05)
    for number in range(LIMIT):
        revision = (await pipeline.submit(write(str(number)))).revision
    following = asyncio.create_task(outbox.bound.follow(etcd))
    try:
        mark = storage.ChainPosition(size=LIMIT, hmac="", revision=revision).SerializeToString()
        await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_MARK, mark)]), idempotent=True)
        async with asyncio.timeout(10):
            while outbox.bound.is_full:
                await asyncio.sleep(0.01)
        await pipeline.submit(write("again"))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_flood_without_a_token_leaves_no_record_and_stops_nobody(
    etcd: Etcd, outbox: Outbox, pipeline: Pipeline
) -> None:
    flood = [pipeline.submit(write(f"flood-{number}", known=False)) for number in range(1000)]
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unauthenticated}
    assert await records(etcd) == 0
    assert not outbox.bound.is_full
    await pipeline.submit(write("legitimate"))
    assert await records(etcd) == 1
