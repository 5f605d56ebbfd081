"""What the outbox holds, read back: keys, records and cursors, as entries that are not chained yet. No I/O.

A record that cannot be read is chained all the same, as an `UnreadableRecord`: whoever can write to etcd must
be able neither to stop the chain nor to put something into the outbox that leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from services.audit.chain import Entry, timestamp
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace

UNREADABLE = "UnreadableRecord"


class Change(NamedTuple):
    """A key that was put: an outbox record or a producer's cursor."""

    key: bytes
    value: bytes
    revision: int


class Gap(NamedTuple):
    """A producer's batch numbers do not follow one another."""

    producer: str
    expected: int
    found: int


def entries_of(changes: Iterable[Change]) -> Iterator[Entry]:
    """The entries of outbox records in (revision, key) order; index, prev_hmac and hmac are still empty."""
    records = (change for change in changes if change.key.startswith(keyspace.OUTBOX))
    for change in sorted(records, key=lambda record: (record.revision, record.key)):
        yield from _entries(change)


def _entries(change: Change) -> list[Entry]:
    producer, seq = _place(change.key)
    try:
        record = storage.OutboxRecord.FromString(change.value)
        return [_entry(one, producer, f"{seq}.{item}") for item, one in enumerate(record.entries)]
    except (DecodeError, ValueError, OverflowError):
        return [_entry(storage.OutboxEntry(op=UNREADABLE, outcome="refused"), producer, f"{seq}.0")]


def _entry(record: storage.OutboxEntry, producer: str, seq: str) -> Entry:
    return Entry(
        index=0,
        ts=timestamp(record.ts_ms),
        request_id=record.request_id,
        accessor=record.accessor,
        op=record.op,
        path=record.path,
        version=record.version,
        outcome=record.outcome,
        reason=record.reason,
        client=record.client,
        producer=producer,
        producer_seq=seq,
        prev_hmac="",
        hmac="",
    )


def _place(key: bytes) -> tuple[str, str]:
    """Producer and batch.part of a record's key; whatever else stands there is named by its whole key."""
    text = key.removeprefix(keyspace.OUTBOX).decode("utf-8", "backslashreplace")
    parts = text.split("/")
    if len(parts) == 4 and parts[2].isascii() and parts[3].isascii() and (parts[2] + parts[3]).isdigit():
        return f"{parts[0]}/{parts[1]}", f"{int(parts[2])}.{int(parts[3])}"
    return text, "0.0"


class Cursors:
    """The gap check: a producer's cursor counts its batches, those that left no record included."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}

    def forget(self, key: bytes) -> None:
        """The cursor was deleted: its producer is gone."""
        self._last.pop(key, None)

    def learn(self, change: Change) -> Gap | None:
        """Take in a cursor's put; the gap it shows, if any. A producer's count begins at the first seen."""
        number = change.value.split(b":")[0]
        producer = change.key.removeprefix(keyspace.PRODUCERS).decode("utf-8", "backslashreplace")
        found = int(number) if number.isdigit() else -1
        last = self._last.get(change.key)
        self._last[change.key] = found
        if last is None or found == last + 1:
            return None
        return Gap(producer, last + 1, found)
