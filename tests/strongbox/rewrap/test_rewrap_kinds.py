"""What rewrapping makes of records of each kind, junk among them. No etcd."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from strongbox.access.authenticated_records import open_record, seal_record
from strongbox.crypto.aead import Aead
from strongbox.crypto.envelope import Dek, seal_value, wrap_dek
from strongbox.crypto.record_keys import RecordKeys
from strongbox.rewrap.rewrap_kinds import Inner, Renewed, renew_envelopes, renew_messages, renew_records
from strongbox.storage.v1 import auth_records_pb2, envelope_pb2, lease_records_pb2
from strongbox.store.envelope_records import to_record
from strongbox.store.etcd.client import KV
from tests.support.keys import FakeKeyClient

KEYS = RecordKeys({1: b"1" * 32, 2: b"2" * 32}, 2)
OLD = RecordKeys({1: b"1" * 32}, 1)
NEVER = (3, 99, (1 << 31) - 1)


def envelope(**other: Any) -> envelope_pb2.Envelope:
    """One of term 1 that opens, but for the fields given."""
    dek = Dek.fresh()
    wrapped = wrap_dek(Aead(b"K" * 32), "kv", 1, dek)
    found = to_record(seal_value(dek, wrapped, "kv", "p", 1, b"value"))
    for name, value in other.items():
        setattr(found, name, value)
    return found


def row(key: bytes, value: bytes) -> KV:
    return KV(key, value, 5, 5)


class Seal(FakeKeyClient):
    """As seal, whose messages have at most 4 MiB: it is asked about what can be a wrapped key only."""

    async def rewrap(self, wrapped: Any) -> Any:
        assert all(len(one.ciphertext) == 32 and one.term < 2 for one in wrapped)
        return await super().rewrap(wrapped)


def require_counted(found: Renewed, logs: Any, good: set[bytes], junk: set[bytes]) -> None:
    assert (set(found.values), found.passed_over) == (good, junk)
    errors = [line for line in logs if line["log_level"] == "error"]
    assert sorted(line["key"].encode() for line in errors) == sorted(junk)  # each once
    assert all(set(line) == {"event", "log_level", "key", "why"} for line in errors)


@pytest.mark.parametrize("term", NEVER)
async def test_envelopes(term: int) -> None:
    rows = {
        b"good": envelope(),
        b"newest": envelope(term=2),
        b"never": envelope(term=term),
        b"negative": envelope(term=-1),
        b"altered": envelope(dek_tag=bytes(16)),
        b"huge": envelope(wrapped_dek=bytes(1_400_000)),
        b"of no id": envelope(dek_id=b""),
    }
    values = {key: one.SerializeToString() for key, one in rows.items()} | {b"junk": b"\xff\xff\xff"}
    with capture_logs() as logs:
        found = await renew_envelopes([row(*one) for one in values.items()], Seal(KEYS))
    require_counted(found, logs, {b"good"}, set(values) - {b"good", b"newest"})
    assert envelope_pb2.Envelope.FromString(found.values[b"good"]).term == 2


@pytest.mark.parametrize("term", NEVER)
async def test_authenticated_records_and_the_envelopes_inside(term: int) -> None:
    Record = lease_records_pb2.ConnectionRecord  # noqa: N806  a message's name

    def sealed(key: bytes, inside: envelope_pb2.Envelope, keys: RecordKeys = OLD) -> bytes:
        return seal_record(keys, key, Record(envelope=inside, version=7).SerializeToString())

    never = auth_records_pb2.AuthenticatedRecord.FromString(sealed(b"never", envelope()))
    never.term = term
    values = {
        b"good": sealed(b"good", envelope()),
        b"newest": sealed(b"newest", envelope(term=2), KEYS),
        b"never": never.SerializeToString(),
        b"never inside": sealed(b"never inside", envelope(term=term), KEYS),
        b"copied": sealed(b"good", envelope()),
        b"junk": b"\xff\xff\xff\xff",
    }
    with capture_logs() as logs:
        found = await renew_records(Inner(Record, "envelope"))(
            [row(*one) for one in values.items()], Seal(KEYS)
        )
    require_counted(found, logs, {b"good"}, set(values) - {b"good", b"newest"})
    body = Record.FromString(open_record(KEYS, b"good", found.values[b"good"]))
    assert (body.envelope.term, body.version) == (2, 7)


async def test_messages_that_are_not_authenticated() -> None:
    Record = lease_records_pb2.ConnectionRecord  # noqa: N806  a message's name
    values = {
        b"good": Record(envelope=envelope()).SerializeToString(),
        b"never": Record(envelope=envelope(term=9)).SerializeToString(),
        b"junk": b"\xff\xff\xff\xff",
    }
    with capture_logs() as logs:
        found = await renew_messages(Inner(Record, "envelope"))(
            [row(*one) for one in values.items()], Seal(KEYS)
        )
    require_counted(found, logs, {b"good"}, {b"never", b"junk"})
