"""Reading the outbox: records as entries that are not chained yet, and cursors as a check for gaps. No I/O.

A record that cannot be read is chained as an `UnreadableRecord`: whoever can write to etcd must be able
neither to stop the chain nor to put something into the outbox that leaves no trace. The same is done with a
record that has an entry too large for a verifier or a peer to take, and with an entry that announces an audit
key which its transaction did not make.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from strongbox.audit_log.chain import ROTATE, Entry, timestamp
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace

UNREADABLE = "UnreadableRecord"
MAX_ENTRY = 16 << 10  # bytes; the services' own entries have a path and a reason of hundreds of bytes
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


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


class Announcement(NamedTuple):
    """A key term, and the revision of the record that says it holds from there on."""

    term: int
    revision: int


def announcements_in(changes: Iterable[Change]) -> set[Announcement]:
    """The key terms that these records announce, whether true or false."""
    found = set()
    for change in changes:
        if ROTATE.encode() in change.value and change.key.startswith(keyspace.OUTBOX):
            entries = _entries(change)
            found |= {Announcement(entry.announces, change.revision) for entry in entries if entry.announces}
    return found


def entries_of(
    changes: Iterable[Change], announced: Container[Announcement] = frozenset()
) -> Iterator[Entry]:
    """The entries of outbox records in (revision, key) order; index, prev_hmac and hmac are still empty.

    `announced`: the announcements that are true.
    """
    records = (change for change in changes if change.key.startswith(keyspace.OUTBOX))
    for change in sorted(records, key=lambda record: (record.revision, record.key)):
        for entry in _entries(change):
            is_false = entry.announces and Announcement(entry.announces, change.revision) not in announced
            yield _unreadable(entry.producer, entry.producer_seq) if is_false else entry


def _entries(change: Change) -> list[Entry]:
    producer, seq = _place(change.key)
    try:
        record = storage.OutboxRecord.FromString(change.value)
        if any(one.ByteSize() > MAX_ENTRY for one in record.entries):
            return [_unreadable(producer, f"{seq}.0")]
        return [_entry(one, producer, f"{seq}.{item}") for item, one in enumerate(record.entries)]
    except (DecodeError, ValueError, OverflowError):
        return [_unreadable(producer, f"{seq}.0")]


def _unreadable(producer: str, seq: str) -> Entry:
    return _entry(storage.OutboxEntry(op=UNREADABLE, outcome="refused"), producer, seq)


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
    """Producer and "batch.part" of a record's key; a key of another form is returned whole, with "0.0"."""
    text = key.removeprefix(keyspace.OUTBOX).decode("utf-8", "backslashreplace")
    parts = text.split("/")
    if len(parts) == 4 and all(_NUMBER.fullmatch(part) for part in parts[2:]):
        return f"{parts[0]}/{parts[1]}", f"{int(parts[2])}.{int(parts[3])}"
    return text, "0.0"


class Cursors:
    """The gap check: a producer's cursor counts its batches, those that left no record included."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}

    def begin(self, cursors: Iterable[Change]) -> None:
        """Forget all others and go on from these."""
        self._last = {change.key: _batch_of(change.value) for change in cursors}

    def forget(self, key: bytes) -> None:
        """The cursor was deleted: its producer is gone."""
        self._last.pop(key, None)

    def learn(self, change: Change) -> Gap | None:
        """Note a cursor's put; returns the gap it shows, if any. A producer's first cursor shows none."""
        producer = change.key.removeprefix(keyspace.PRODUCERS).decode("utf-8", "backslashreplace")
        found = _batch_of(change.value)
        last = self._last.get(change.key)
        self._last[change.key] = found
        if last is None or found == last + 1:
            return None
        return Gap(producer, last + 1, found)


def _batch_of(cursor: bytes) -> int:
    number = cursor.split(b":")[0]
    return int(number) if number.isdigit() and len(number) < 20 else -1
