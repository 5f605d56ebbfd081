"""Read leases: which token holds which secret until when. Written by kv with a read, ended by lease.

Rules:
* One per (accessor, policy path), its id computed from the two; so a read finds it by one key, and compares
  it: a lease that is revoked while the secret is read makes the read decide again.
* It lasts 1 h, never beyond the token. It is written when there is none, when it is revoked, or when writing
  moves its expiry by a quarter of what is left to the reader: a hot read writes nothing.
* The record is authenticated; one that does not verify is absent, and is replaced by the next read.
* Three entries lead to it (`index`): when it is due (its expiry, or the end of the 24 h for which a revoked
  one stays readable), by path and by accessor. They are hints: the record decides.
* When etcd's space is nearly used up none is written: a living one is answered as it stands, and without one
  the secret is read without a lease.
* It counts against the quotas of the token's holder and group (`counters`) until it is revoked or gone; one
  that is renewed still counts where it began.
* `ACTIVE → EXPIRED`, and deleted by the reaper's next pass: the audit chain tells what was read. `REVOKED` is
  what somebody ended; it stays readable for 24 h, or is deleted at once while nothing may grow. So what reads
  leave behind is bounded by the number of living leases, not by the reads of a day.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

import structlog
from google.protobuf.message import DecodeError

from strongbox.access.authenticated_records import Forged, find_record, open_record, seal_record
from strongbox.access.token_groups import Groups
from strongbox.crypto.encoding import canonical_aad
from strongbox.crypto.record_keys import RecordKeys
from strongbox.lease_records import counters
from strongbox.lease_records.counters import Tally
from strongbox.lease_records.index import KEPT_MS, by_accessor_key, by_path_key
from strongbox.lease_records.index import due_key as due_entry
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from strongbox.store.space.admission import Effect

ACTIVE, EXPIRED, REVOKED = "ACTIVE", "EXPIRED", "REVOKED"
TTL_MS = 3_600_000
STEPS = 4  # a read moves the expiry only by at least this fraction (a quarter) of the time to live
_ID = re.compile(r"r[0-9a-f]{40}\Z")
_log = structlog.get_logger(__name__)

Record = storage.ReadLeaseRecord


class Reader(NamedTuple):
    """Whose lease it is; `expires_ms`: of his token, 0: never."""

    accessor: str
    groups: Groups
    expires_ms: int


class Held(NamedTuple):
    """What the reader is told; moments in milliseconds since the epoch."""

    id: str
    expires_ms: int
    now_ms: int


def lease_id(accessor: str, path: str) -> str:
    """`r` and 40 hex digits (160 bits of SHA-256): the id of a token's lease of a policy path. No secret."""
    return "r" + hashlib.sha256(canonical_aad("read lease id v1", accessor, path)).hexdigest()[:40]


def is_lease_id(text: str) -> bool:
    """Whether `text` has the form of a read lease's id; what has not is never looked up."""
    return _ID.match(text) is not None


def hold(
    view: View,
    keys: RecordKeys,
    reader: Reader,
    path: str,
    tally: Tally | None = None,
) -> Held | None:
    """The reader's lease of `path`, written if it must be.

    `None` when there is no living one and etcd has no space for another: reading goes on without.
    A decision that takes several leases gives one tally and settles it at the end; each path once.
    Raises `QuotaExceeded`.
    """
    name = lease_id(reader.accessor, path)
    expires_ms = _wanted_expiry(view.now_ms, reader.expires_ms)
    known = find(view, keys, name)
    if known is not None and not must_write(known, expires_ms, view.now_ms):
        return Held(name, known.expires_ms, view.now_ms)
    lives = known is not None and state_of(known, view.now_ms) == ACTIVE
    if not view.may_grow():  # renewing many leases at once is growth too, by their history
        return Held(name, known.expires_ms, view.now_ms) if known is not None and lives else None
    issued_ms = known.issued_ms if known is not None and lives else view.now_ms
    record = Record(id=name, path=path, accessor=reader.accessor, issued_ms=issued_ms, expires_ms=expires_ms)
    own = tally or Tally()
    if known is None or known.revoked_ms:
        counters.require_lease_room(view, reader.groups, name, own)
        record.holder, record.group = reader.groups
    else:
        record.holder, record.group = known.holder, known.group
    put(view, keys, record, known, own)
    if tally is None:
        own.settle(view)
    return Held(name, expires_ms, view.now_ms)


def must_write(known: Record, expires_ms: int, now_ms: int) -> bool:
    """Whether a read whose lease would expire at `expires_ms` has to write it anew.

    Once per quarter of the time to live, be that 1 h or what a short token has left.
    """
    return bool(known.revoked_ms) or STEPS * (expires_ms - known.expires_ms) >= expires_ms - now_ms


def state_of(record: Record, now_ms: int) -> str:
    """`ACTIVE`, `EXPIRED` or `REVOKED`."""
    if record.revoked_ms:
        return REVOKED
    return EXPIRED if record.expires_ms <= now_ms else ACTIVE


def revoke(view: View, keys: RecordKeys, record: Record, tally: Tally | None = None) -> Record:
    """Write the lease as revoked, unless it is; it stays readable for 24 h. Returns it as it is then.

    When etcd's space is nearly used up it is deleted instead, so that callers who may only read cannot fill
    the store. A decision that revokes several gives one tally and settles it at the end.
    """
    if record.revoked_ms:
        return record
    revoked = Record()
    revoked.CopyFrom(record)
    revoked.revoked_ms = view.now_ms
    view.means(Effect.FREES)
    own = tally or Tally()
    if view.may_grow():
        put(view, keys, revoked, record, own)
    else:
        drop(view, record, own)
    if tally is None:
        own.settle(view)
    return revoked


def find(view: View, keys: RecordKeys, name: str) -> Record | None:
    """A lease's record, not to be changed; `None` when absent or forged."""

    def parse(key: bytes, value: bytes) -> Record | None:
        try:
            record = Record.FromString(open_record(keys, key, value))
        except (Forged, DecodeError) as error:
            _log.error("a forged record grants nothing", key=key.decode("ascii", "replace"), why=str(error))
            return None
        return record

    return find_record(view, keyspace.read_lease(name), parse)


def put(view: View, keys: RecordKeys, record: Record, known: Record | None, tally: Tally) -> None:
    """Write `record` in place of `known`, and the entries that lead to it."""
    key = keyspace.read_lease(record.id)
    _count(tally, known, -1)
    _count(tally, record, 1)
    if known is None:
        view.put(by_path_key(record.path, record.id), b"")
        view.put(by_accessor_key(record.accessor, record.id), b"")
    elif due_key(known) != due_key(record):
        view.delete(due_key(known))
    view.put(key, seal_record(keys, key, record.SerializeToString(deterministic=True)))
    if known is None or due_key(known) != due_key(record):
        view.put(due_key(record), b"")


def drop(view: View, record: Record, tally: Tally) -> None:
    """Delete the lease and all that leads to it; its counter moves when the tally is settled."""
    _count(tally, record, -1)
    view.delete(keyspace.read_lease(record.id))
    view.delete(due_key(record))
    view.delete(by_path_key(record.path, record.id))
    view.delete(by_accessor_key(record.accessor, record.id))


def due_ms(record: Record) -> int:
    """When the reaper looks at it: at its expiry, or when a revoked one has been readable long enough."""
    return record.revoked_ms + KEPT_MS if record.revoked_ms else record.expires_ms


def due_key(record: Record) -> bytes:
    """Its entry in the index of what is due."""
    return due_entry(due_ms(record), record.id)


def _count(tally: Tally, record: Record | None, by: int) -> None:
    """Move the counters that the lease is in: one that is revoked or absent is in none."""
    if record is not None and not record.revoked_ms:
        for key in counters.keys_of(record):
            tally.move(key, by)


def _wanted_expiry(now_ms: int, token_expires_ms: int) -> int:
    expires_ms = now_ms + TTL_MS
    return min(expires_ms, token_expires_ms) if token_expires_ms else expires_ms
