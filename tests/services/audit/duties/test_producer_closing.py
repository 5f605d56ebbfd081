"""Producers that are gone are closed by their cursor; those that are alive, or come back, are not."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from services.audit.duties import producer_closing
from services.audit.duties.producer_closing import Closing, incarnations_of
from strongbox.audit_outbox.outbox import Outbox
from strongbox.errors import StrongBoxError
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd
from tests.services.audit.duties.test_audit_duty import FixedClock, on_duty
from tests.services.audit.producers import Producer, caught_up, following, until

A, B = keyspace.cursor("kv", "a" * 16), keyspace.cursor("auth", "b" * 16)


def cursor(key: bytes, revision: int) -> KV:
    return KV(key, b"7:nonce", revision, 1)


def test_a_silent_producer_without_a_session_is_closed_after_its_time() -> None:
    closing_, rows = Closing(60), [cursor(A, 10), cursor(B, 11)]
    assert closing_.due(rows, {"b" * 16}, [], 0.0) == []
    assert closing_.due(rows, {"b" * 16}, [], 59.0) == []
    assert closing_.due(rows, {"b" * 16}, [], 60.0) == rows[:1]


def test_one_that_moves_or_comes_back_begins_its_time_anew() -> None:
    closing_ = Closing(60)
    closing_.due([cursor(A, 10)], (), [], 0.0)
    assert closing_.due([cursor(A, 12)], (), [], 61.0) == []
    assert closing_.due([cursor(A, 12)], {"a" * 16}, [], 100.0) == []
    assert closing_.due([cursor(A, 12)], (), [], 130.0) == []
    assert closing_.due([cursor(A, 12)], (), [], 190.0) == [cursor(A, 12)]


def test_what_it_left_in_the_outbox_keeps_it_open() -> None:
    closing_, row = Closing(60), cursor(A, 10)
    record = KV(keyspace.outbox_record("kv", "a" * 16, 7, 0), b"", 10, 10)
    closing_.due([row], (), [record], 0.0)
    assert closing_.due([row], (), [record], 100.0) == []
    assert closing_.due([row], (), [], 101.0) == [row]


def test_sessions_name_incarnations_and_what_is_no_session_names_none() -> None:
    rows = [
        KV(b"k", value, 1, 1) for value in (json.dumps({"incarnation": "x"}).encode(), b"{}", b"\xff", b"[]")
    ]
    assert list(incarnations_of(rows)) == ["x"]


async def test_the_duty_removes_the_cursors_of_the_dead_and_keeps_those_of_the_living(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer_closing, "PATIENCE", 1.0)
    monkeypatch.setattr(Closing.__init__, "__defaults__", (1.0,))
    dead, alive = Producer(etcd, "kv", "a" * 16), Producer(etcd, "auth", "b" * 16)
    await dead.put(1)
    session = json.dumps({"incarnation": "b" * 16}).encode()
    await etcd.transact(txn.txn([], [txn.put(keyspace.node("auth", "node-1"), session)]))
    revision = await alive.put(2)
    async with following(etcd, tmp_path / "1", "node-1") as one, on_duty(etcd, one):
        await caught_up(revision, one)

        async def is_closed() -> bool:
            return await etcd.get(A) is None

        await until(is_closed, "the dead one is closed")
        await alive.put(1)
        await asyncio.sleep(2.5)  # time for the duty to do wrong
        assert await etcd.get(B) is not None
        assert one.gaps == 0


async def test_a_producer_that_was_believed_dead_goes_on_as_another(etcd: Etcd) -> None:
    outbox, memory = Outbox("kv"), Memory()
    pipeline = Pipeline(etcd, memory, outbox, FixedClock())
    await pipeline.start()
    try:
        first = outbox.incarnation
        await pipeline.submit(write(b"/test/1"))
        await etcd.transact(txn.txn([], [txn.delete(outbox.cursor_key)]))
        with pytest.raises(StrongBoxError) as refusal:
            await pipeline.submit(write(b"/test/2"))
        assert refusal.value.reason == "UNKNOWN_OUTCOME"
        await pipeline.submit(write(b"/test/3"))
        assert outbox.incarnation != first
        assert await etcd.get(b"/test/2") is None
        row = await etcd.get(outbox.cursor_key)
        assert row is not None and row.value.startswith(b"1:")
    finally:
        await pipeline.close()


def write(key: bytes) -> Work[None]:
    def decide(view: View) -> None:
        assert view.draft is not None
        view.draft.accessor = "alice"
        view.put(key, b"x")

    return Work(decide, Draft("WriteSecret", "secret/a", "r", "::1"), time.monotonic() + 5)
