"""Reading the outbox back: order, sequence numbers, and batches that are missing."""

from __future__ import annotations

from services.audit.following.outbox_reader import Change, Cursors, Gap, entries_of
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace


def record(batch: int, part: int, revision: int, *paths: str) -> Change:
    value = storage.OutboxRecord(entries=[storage.OutboxEntry(path=path) for path in paths])
    return Change(keyspace.outbox_record("kv", "a" * 16, batch, part), value.SerializeToString(), revision)


def cursor(batch: int, incarnation: str = "a") -> Change:
    return Change(keyspace.cursor("kv", incarnation), b"%d:nonce" % batch, batch)


def test_entries_come_in_revision_then_key_order_with_batch_part_and_item() -> None:
    changes = [record(12, 0, 9, "d"), record(2, 1, 5, "b", "c"), cursor(3), record(2, 0, 5, "a")]
    found = [(entry.path, entry.producer_seq) for entry in entries_of(changes)]
    assert found == [("a", "2.0.0"), ("b", "2.1.0"), ("c", "2.1.1"), ("d", "12.0.0")]


def test_a_time_that_is_none_is_an_unreadable_record() -> None:
    value = storage.OutboxRecord(entries=[storage.OutboxEntry(op="ReadSecret", ts_ms=2**62)])
    change = Change(keyspace.outbox_record("kv", "a" * 16, 1, 0), value.SerializeToString(), 1)
    assert [entry.op for entry in entries_of([change])] == ["UnreadableRecord"]


def test_a_missing_batch_is_a_gap_and_so_is_one_that_comes_again() -> None:
    cursors = Cursors()
    assert [cursors.learn(cursor(batch)) for batch in (7, 8)] == [None, None]
    assert cursors.learn(cursor(10)) == Gap("kv/a", 9, 10)
    assert cursors.learn(cursor(11)) is None
    assert cursors.learn(cursor(11)) == Gap("kv/a", 12, 11)


def test_producers_are_counted_apart_and_forgotten_with_their_cursor() -> None:
    cursors = Cursors()
    assert cursors.learn(cursor(7, "a")) is None
    assert cursors.learn(cursor(3, "b")) is None
    cursors.forget(keyspace.cursor("kv", "a"))
    assert cursors.learn(cursor(1, "a")) is None
    assert cursors.learn(cursor(4, "b")) is None


def test_a_cursor_nobody_can_read_is_a_gap() -> None:
    cursors = Cursors()
    cursors.learn(cursor(7))
    gap = cursors.learn(Change(keyspace.cursor("kv", "a"), b"\xff", 8))
    assert gap is not None


def test_an_entry_too_large_for_a_verifier_is_an_unreadable_record() -> None:
    found = [entry.op for entry in entries_of([record(1, 0, 1, "a" * 15_000), record(2, 0, 2, "a" * 20_000)])]
    assert found == ["", "UnreadableRecord"]
