"""Work is bounded by bytes: what a round reads, what one request may ask for, what a failure returns."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import SystemClock
from strongbox.errors import TooLarge
from strongbox.store.decisions import batch_txn, deciding
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.deciding import Decider
from strongbox.store.decisions.view import View
from strongbox.store.decisions.work import Item, Work
from strongbox.store.etcd import txn
from strongbox.store.space.admission import Effect, Space

HALF = 512 << 10


class Store:
    """Every key holds half a mebibyte, those named `small` ten bytes; notes how large each answer was."""

    def __init__(self) -> None:
        self.answers: list[int] = []

    async def transact(self, request: txn.TxnRequest, **_: Any) -> txn.TxnResponse:
        reply = txn.TxnResponse()
        reply.header.revision = 100
        for operation in request.success:
            key = operation.request_range.key
            value = bytes(10 if b"small" in key else HALF)
            reply.responses.add().response_range.kvs.add(key=key, value=value, mod_revision=7)
        self.answers.append(reply.ByteSize())
        return reply


def reading(call: str, *keys: bytes) -> Item:
    def decide(view: View) -> int:
        view.prefetch(*keys)
        return sum(len(view.get(key).value or b"") for key in keys)

    draft = Draft(op="op", path="p", request_id=call, client="c", accessor="me")
    return Item(Work(decide, draft, time.monotonic() + 5))


def made(store: Store) -> Decider:
    return Decider(store, Memory(), SystemClock(), Space(1 << 30))  # type: ignore[arg-type]


async def test_a_round_reads_few_bytes_and_the_rest_waits() -> None:
    store = Store()
    items = [reading("greedy", b"%d" % number) for number in range(256)]
    decider = made(store)
    ready = await decider.decide(items)
    assert ready is not None
    decided = [item for item in items if item.decided is not None]
    assert 16 <= len(decided) < 64
    assert sum(store.answers) < 2 * deciding.ROUND_BYTES
    waiting = [item for item in items if item.decided is None]
    for _ in range(20):
        if not waiting:
            break
        await decider.decide(waiting)
        waiting = [item for item in waiting if item.decided is None]
    assert not waiting
    assert max(store.answers[1:]) < 4 * deciding.ANSWER_BYTES + HALF


async def test_one_call_of_many_does_not_hold_up_a_call_of_one() -> None:
    greedy = [reading("greedy", b"%d" % number) for number in range(256)]
    honest = reading("honest", b"small")
    await made(Store()).decide([*greedy, honest])
    assert honest.decided is not None


async def test_a_request_for_more_than_the_memory_is_for_fails_alone() -> None:
    greedy, honest = reading("greedy", *(b"%d" % number for number in range(90))), reading("honest", b"small")
    decider = made(Store())
    for _ in range(12):
        await decider.decide([item for item in (greedy, honest) if item.decided is None])
    assert isinstance(greedy.done.exception(), TooLarge)
    assert honest.decided is not None


async def test_what_is_decided_and_has_to_wait_is_not_decided_again() -> None:
    asked: list[View] = []
    item = Item(Work(asked.append, None, time.monotonic() + 5))
    decider = made(Store())
    await decider.decide([item])
    await decider.decide([item])
    assert len(asked) == 1


async def test_a_failed_compare_sends_no_large_value_back() -> None:
    item = reading("one", b"large", b"small")
    decider = made(Store())
    await decider.decide([item])
    assert item.decided is not None
    parts = batch_txn.parts_of([item.decided])
    request = batch_txn.build([item.decided], parts, Outbox("kv"), 1, "n", 0)
    asked = [one.request_range for one in request.success[1].request_txn.failure]
    assert {(one.key, one.keys_only) for one in asked} == {(b"large", True), (b"small", False)}
    reply = txn.ResponseOp()
    for key, revision in ((b"large", 8), (b"small", 7)):
        row = reply.response_txn.responses.add().response_range.kvs.add(key=key, mod_revision=revision)
        row.value = b"" if key == b"large" else bytes(10)
    told = batch_txn.read_part(reply, [item.decided])
    assert told.changed == {b"large"}
    assert set(told.found) == {b"small"}


def denied(call: str, paths: int) -> Item:
    """A call that leaves a record of 512 bytes for each of its paths, and changes nothing."""

    def decide(view: View) -> None:
        assert view.draft is not None
        for number in range(paths):
            view.record(replace(view.draft, path=f"secret/{number:03d}".ljust(512, "x"), outcome="refused"))
        view.draft = None

    draft = Draft(op="op", path="p", request_id=call, client="c", accessor="me")
    return Item(Work(decide, draft, time.monotonic() + 5))


async def test_audit_records_count_in_a_transaction_and_in_the_space_they_take() -> None:
    items = [denied(str(number), 256) for number in range(12)]
    await made(Store()).decide(items)
    decided = [item.decided for item in items if item.decided is not None]
    parts = batch_txn.parts_of(decided)
    request = batch_txn.build(decided, parts, Outbox("kv"), 1, "n", 0)
    assert sum(batch_txn.cost_of(one)[1] for one in decided) >= request.ByteSize()
    assert parts[0].size > 12 * 256 * 512
    assert {item.effect for item in items} == {Effect.GROWS}


async def test_few_audit_records_are_no_growth() -> None:
    item = denied("few", 8)
    await made(Store()).decide([item])
    assert item.effect is Effect.NEUTRAL
