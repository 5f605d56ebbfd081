"""Deciding: for whom it is done, and on which facts an end rests that no transaction proves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from strongbox.clock import SystemClock
from strongbox.errors import Internal
from strongbox.store.decisions.cache import Fact, Memory
from strongbox.store.decisions.deciding import Decider
from strongbox.store.decisions.view import Row, View
from strongbox.store.decisions.work import Item, Work
from strongbox.store.duties.election import Deposed, Term
from strongbox.store.etcd import txn

KEY = b"/strongbox/election/lease/reaper"


class Store:
    """Answers every read with one row for each key; counts the transactions."""

    def __init__(self, rows: dict[bytes, tuple[bytes, int]]) -> None:
        self.rows, self.asked = rows, 0

    async def transact(self, request: txn.TxnRequest, **_: Any) -> txn.TxnResponse:
        self.asked += 1
        reply = txn.TxnResponse()
        reply.header.revision = 100
        for operation in request.success:
            found = reply.responses.add().response_range
            key = operation.request_range.key
            if key in self.rows:
                value, revision = self.rows[key]
                found.kvs.add(key=key, value=value, mod_revision=revision)
        return reply


def work(decide: Any) -> Work[Any]:
    return Work(decide, None, time.monotonic() + 5)


def decider(store: Store, memory: Memory) -> Decider:
    return Decider(store, memory, SystemClock())  # type: ignore[arg-type]


async def test_nothing_is_decided_for_who_has_left() -> None:
    memory, asked = Memory(), list[View]()
    item = Item(work(asked.append))
    item.expire()
    assert await decider(Store({}), memory).decide([item]) == []
    assert asked == []
    assert item.done.exception() is not None


async def test_who_leaves_while_facts_are_read_for_others_is_not_decided_again() -> None:
    memory = Memory()
    seen: list[str] = []
    leaver: Item

    class Slow(Store):
        async def transact(self, request: txn.TxnRequest, **keywords: Any) -> txn.TxnResponse:
            leaver.expire()
            await asyncio.sleep(0)
            return await super().transact(request, **keywords)

    def decide(name: str) -> Any:
        def decided(view: View) -> None:
            view.get(b"k")
            seen.append(name)

        return decided

    leaver, stayer = Item(work(decide("leaver"))), Item(work(decide("stayer")))
    ready = await decider(Slow({b"k": (b"v", 3)}), memory).decide([leaver, stayer])
    assert ready == [stayer]
    assert seen == ["stayer"]
    leaver.done.exception()


async def test_others_have_their_turn_while_much_is_decided() -> None:
    turns: list[str] = []
    leaver: Item

    def decide(name: str) -> Any:
        def decided(_: View) -> None:
            turns.append(name)
            until = time.monotonic() + 0.06
            while time.monotonic() < until:
                pass

        return decided

    async def beat() -> None:
        turns.append("beat")
        leaver.expire()

    items = [Item(work(decide(name))) for name in ("first", "second", "leaver")]
    leaver = items[-1]
    beating = asyncio.create_task(beat())
    assert await decider(Store({}), Memory()).decide(items) == items[:2]
    assert turns == ["first", "beat", "second"]
    await beating
    leaver.done.exception()


async def test_a_holder_in_a_second_term_is_in_office_although_memory_holds_the_first() -> None:
    memory, store = Memory(), Store({KEY: (b"2 node-1", 9)})
    memory.learn(KEY, Fact(b"1 node-1", 5), 5, time.monotonic())
    item = Item(work(Term(2, KEY, 9).require))
    assert await decider(store, memory).decide([item]) == [item]
    assert store.asked == 1


async def test_a_holder_whose_term_is_over_in_etcd_as_well_is_deposed() -> None:
    memory, store = Memory(), Store({KEY: (b"3 node-2", 12)})
    memory.learn(KEY, Fact(b"1 node-1", 5), 5, time.monotonic())
    item = Item(work(Term(2, KEY, 9).require))
    assert await decider(store, memory).decide([item]) == []
    with pytest.raises(Deposed):
        item.done.result()


async def test_what_is_revealed_is_told_once_with_the_rows_of_the_transaction() -> None:
    told: list[object] = []

    def decide(view: View) -> str:
        def read(rows: object) -> str:
            view.require_open()
            told.append(rows)
            return "revealed"

        view.fetch(b"a", b"b")
        view.reveal(read)
        return "decided"

    item = Item(work(decide))
    assert await decider(Store({}), Memory()).decide([item]) == [item]
    assert told == []
    rows = (Row(b"a", b"v", 3, 3),)
    item.succeed(7, rows, 0.0)
    assert item.done.result().value == "revealed"
    assert told == [rows]
    with pytest.raises(RuntimeError):
        item.view.require_open()  # type: ignore[union-attr]


async def test_a_defect_in_what_is_revealed_fails_its_own_request() -> None:
    def decide(view: View) -> None:
        view.reveal(lambda rows: 1 // 0)

    item = Item(work(decide))
    await decider(Store({}), Memory()).decide([item])
    item.succeed(7, (), 0.0)
    with pytest.raises(Internal):
        item.done.result()


async def test_what_a_view_proves_is_worth_nothing_once_its_decision_is_made_however_it_ends() -> None:
    views: list[View] = []

    def decide(view: View) -> None:
        view.require_open()
        views.append(view)
        view.reveal(lambda _: view.require_open())
        view.get(KEY)  # the first time nobody knows it
        if len(views) > 2:
            raise Internal

    items = [Item(work(decide)) for _ in range(2)]
    await decider(Store({}), Memory()).decide(items)
    assert len(views) > 2
    assert items[0].view is not None
    items[0].view.told(None, [])
    for view in views:
        with pytest.raises(RuntimeError, match="beyond"):
            view.require_open()
