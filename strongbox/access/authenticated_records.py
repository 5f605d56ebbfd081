"""Authenticated records: forging, editing or copying a record in etcd grants nothing.

    AuthenticatedRecord{term, body, mac}
    mac = HMAC-SHA256(record key of `term`, lp(label) ‖ lp(etcd key) ‖ lp(term, 8 bytes) ‖ lp(body))

Rules:
* Every part is preceded by its length (8 bytes, big-endian), so no two different lists of parts give the
  same input; the label keeps these MACs apart from every other use of the key.
* The etcd key is under the MAC, so a record copied to another key is forged; so is one whose term was
  changed.
* Any term whose key is held is accepted (records are re-MACed after a rotation); new ones are made under the
  newest. A term that is not held may be a key that has not arrived: `KeyNotHere`. It is a forgery when the
  term is newer than the one in use, which a decision can prove (`find_record`).
* What does not verify is treated as absent by whoever reads it, and logged by its etcd key.

Somebody who can write to etcd can put an older record back, or delete one: nothing here detects that
(docs/threat-model.md).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError

from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import DependencyDown, NotInitialized, Sealed
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

__all__ = [
    "Forged",
    "KeyNotHere",
    "RecordKeys",
    "find_record",
    "open_record",
    "require_never_was",
    "seal_record",
    "term_in_use",
]
T = TypeVar("T")
_log = structlog.get_logger(__name__)
_LABEL = b"strongbox authenticated record v1"


class Forged(Exception):
    """A record that nobody with a record key wrote at this etcd key."""


class KeyNotHere(DependencyDown):
    """A record names a key term that is newer than any this process has heard of."""

    def __init__(self, term: int) -> None:
        super().__init__("the record key of this term has not arrived yet")
        self.term = term


def term_in_use(state: bytes | None) -> int:
    """The key term that the seal state names. Raises NotInitialized, Sealed."""
    if state is None:
        raise NotInitialized
    word, *numbers = state.split(b":")
    if word != b"unsealed" or not all(map(bytes.isdigit, numbers)):
        raise Sealed
    return int(numbers[1]) if len(numbers) > 1 else 1


def find_record(view: View, key: bytes, parse: Callable[[bytes, bytes], T | None]) -> T | None:
    """Like `view.parsed`, but a record of a key term that does not exist is absent, not waited for in vain.

    A rotation's transaction names the new term in the seal state before anybody writes under it. So a record
    of a newer term than the seal state of the same revision is forged; the transaction compares both. With
    stale memory a good record may look like that, hence nothing is remembered of it.
    """
    try:
        return view.parsed(key, parse)
    except KeyNotHere as late:
        require_never_was(view, late)
        _log.error("a forged record grants nothing", key=key.decode("ascii", "replace"), why="its key term")
        return None


def require_never_was(view: View, late: KeyNotHere) -> None:
    """Raise `late` unless the transaction proves that there is no such key term (see `find_record`)."""
    if late.term <= term_in_use(view.get(keyspace.SEAL_STATE).value):
        raise late


def seal_record(keys: RecordKeys, etcd_key: bytes, body: bytes) -> bytes:
    """The value to put at `etcd_key`: `body` (a serialized record) under a MAC of the newest term."""
    mac = _mac(keys.by_term[keys.newest], etcd_key, keys.newest, body)
    return storage.AuthenticatedRecord(term=keys.newest, body=body, mac=mac).SerializeToString()


def open_record(keys: RecordKeys, etcd_key: bytes, value: bytes) -> bytes:
    """The body of what stands at `etcd_key`.

    Raises `Forged` when the MAC is not right for this key, and `KeyNotHere` (a DependencyDown) when the key
    of its term is not held yet.
    """
    try:
        record = storage.AuthenticatedRecord.FromString(value)
    except DecodeError:
        raise Forged("not an authenticated record") from None
    if record.term not in keys.by_term:
        if record.term <= keys.newest:
            raise Forged("a key term that never was or is retired")
        raise KeyNotHere(record.term)
    expected = _mac(keys.by_term[record.term], etcd_key, record.term, record.body)
    if not hmac.compare_digest(expected, record.mac):
        raise Forged("the MAC does not verify")
    return record.body


def _mac(key: bytes, etcd_key: bytes, term: int, body: bytes) -> bytes:
    parts = (_LABEL, etcd_key, term.to_bytes(8, "big", signed=True), body)
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.digest(key, message, "sha256")
