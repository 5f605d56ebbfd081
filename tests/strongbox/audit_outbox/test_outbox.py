"""How audit records are packed, and where they stand."""

from __future__ import annotations

from strongbox.audit_outbox.outbox import Outbox, new_incarnation
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft, Journal


def test_every_start_of_a_process_has_16_fresh_hex_digits() -> None:
    made = {new_incarnation() for _ in range(100)}
    assert len(made) == 100
    assert all(len(one) == 16 and set(one) <= set("0123456789abcdef") for one in made)


def test_keys_are_those_of_the_keyspace() -> None:
    outbox: Journal = Outbox("kv", "0123456789abcdef")
    assert outbox.cursor_key == keyspace.PRODUCERS + b"kv/0123456789abcdef"
    assert outbox.record_key(7, 3) == keyspace.OUTBOX + b"kv/0123456789abcdef/0000000000000007/0003"
    assert outbox.record_key(7, 3).startswith(outbox.batch_prefix(7))
    assert not outbox.record_key(70, 3).startswith(outbox.batch_prefix(7))


def test_a_record_holds_all_operations_of_its_part_in_order() -> None:
    drafts = [
        Draft("ReadSecret", "secret/a", "r1", "127.0.0.1", "alice", 3, "ok", "", 1_700_000_000_000),
        Draft(
            "WriteSecret",
            "secret/ü",
            "r2",
            "::1",
            "bob",
            0,
            "refused",
            "PERMISSION_DENIED",
            1_700_000_000_001,
        ),
    ]
    record = storage.OutboxRecord.FromString(Outbox("kv").pack(drafts))
    read = [
        Draft(
            one.op,
            one.path,
            one.request_id,
            one.client,
            one.accessor,
            one.version,
            one.outcome,
            one.reason,
            one.ts_ms,
        )
        for one in record.entries
    ]
    assert read == drafts
