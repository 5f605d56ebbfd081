"""Refused logins: who is locked, which source is slowed down. In etcd, so shared by all replicas. Pure.

Rules:
* A user is locked for 15 min by 5 failures in a row, none more than 15 min after the one before. A lock
  refuses the right password as well, ends by itself, and is not prolonged by what is refused meanwhile. A
  login that succeeds clears the count. Guesses in parallel gain nothing: each is decided by the transaction
  that counts it.
* An AppRole or a Kubernetes role is never locked: its secrets are random or signed, so they cannot be
  guessed, and a lock would let anybody who knows a role id stop a service. Its count only decides what is
  recorded.
* Each refusal until the lock is recorded, the one that locks with the reason `LOCKED`; further ones are only
  counted (strongbox.audit_outbox.refusal_counts), so that nobody without a credential can fill the audit log.
* Each refusal, of a known or an unknown name, takes one from its source's allowance of 250, which regains one
  a second. With none left every login from that source is answered 429. A source is an IPv4 address, or a /64
  of IPv6. All sources share 1024 records by a keyed hash, so that they cannot fill the store, and nobody can
  choose whose record it shares.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final

from strongbox import paths
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import RateLimited
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

MAX_FAILURES: Final = 5
LOCK_MS: Final = 15 * 60_000
BURST, PER_SECOND = 250, 1  # refused logins of one source
SOURCES = 1024
LOCKED = "LOCKED"
_LABEL = b"strongbox login source v1\0"
_WHOLE = 1000  # SourceRecord counts in thousandths


def failure_key(kind: str, name: str) -> bytes:
    """Where the refusals of a user or role are counted; `kind`: `users`, `approles`, `kubernetes`."""
    return keyspace.LOGIN_FAILURES + f"{kind}/{paths.fold_name(name)}".encode()


def failures_of(view: View, key: bytes) -> storage.FailureRecord:
    """The failures that count now: none once the lock, or 15 min since the last failure, are over."""
    value = view.get(key).value
    known = storage.FailureRecord.FromString(value) if value else storage.FailureRecord()
    over = known.locked_until_ms or known.last_ms + LOCK_MS
    return known if view.now_ms < over else storage.FailureRecord()


def is_locked(known: storage.FailureRecord) -> bool:
    """Whether these failures lock."""
    return known.locked_until_ms > 0


def note(view: View, key: bytes) -> None:
    """Count one refusal; the view's draft becomes its record, or None when it is only counted."""
    known = failures_of(view, key)
    if is_locked(known):
        view.draft = None
        return
    locks = known.failures + 1 >= MAX_FAILURES
    counted = storage.FailureRecord(
        failures=known.failures + 1,
        last_ms=view.now_ms,
        locked_until_ms=view.now_ms + LOCK_MS if locks else 0,
    )
    view.put(key, counted.SerializeToString())
    if view.draft is not None:
        view.draft.outcome, view.draft.reason = "refused", LOCKED if locks else "UNAUTHENTICATED"


def clear(view: View, key: bytes) -> None:
    """Forget the failures of a user or role, if there are any."""
    if view.get(key).value is not None:
        view.delete(key)


def source_key(keys: RecordKeys, client: str) -> bytes:
    """The etcd key of the record for a client's address, one of `SOURCES`."""
    digest = hmac.digest(keys.by_term[keys.newest], _LABEL + _network_of(client).encode(), "sha256")
    return keyspace.LOGIN_SOURCES + b"%04d" % (int.from_bytes(digest[:8], "big") % SOURCES)


def require_allowance(view: View, key: bytes) -> None:
    """Raise `RateLimited` when the source has no allowance left."""
    left = _left(view, key)
    if left < _WHOLE:
        seconds = -(-(_WHOLE - left) // (_WHOLE * PER_SECOND))
        raise RateLimited("too many refused logins from this address", retry_after=str(seconds))


def take_allowance(view: View, key: bytes) -> None:
    """Take one refusal from the source's allowance."""
    left = max(0, _left(view, key) - _WHOLE)
    view.put(key, storage.SourceRecord(left=left, at_ms=view.now_ms).SerializeToString())


def _left(view: View, key: bytes) -> int:
    value = view.get(key).value
    if value is None:
        return BURST * _WHOLE
    known = storage.SourceRecord.FromString(value)
    return min(BURST * _WHOLE, known.left + max(0, view.now_ms - known.at_ms) * PER_SECOND)


def _network_of(client: str) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(getattr(address, "ipv4_mapped", None) or address)
