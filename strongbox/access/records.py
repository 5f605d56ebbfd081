"""Authenticated records: forging, editing or copying a record in etcd grants nothing.

    AuthenticatedRecord{term, body, mac}
    mac = HMAC-SHA256(record key of `term`, lp(label) ‖ lp(etcd key) ‖ lp(term, 8 bytes) ‖ lp(body))

Rules:
* Every part is preceded by its length (8 bytes, big-endian), so no two different lists of parts give the
  same input; the label keeps these MACs apart from every other use of the key.
* The etcd key is under the MAC, so a record copied to another key is forged; so is one whose term was
  changed.
* Any term whose key is held is accepted (records are re-MACed after a rotation); new ones are made under the
  newest. A term that is not held is not a forgery but a key that has not arrived: `DependencyDown`.
* What does not verify is treated as absent by whoever reads it, and logged by its etcd key.

A record that was replaced by an older one, or deleted, by somebody who can write to etcd is in the threat
model; nothing here detects it.
"""

from __future__ import annotations

import hmac

from google.protobuf.message import DecodeError

from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import DependencyDown
from strongbox.storage.v1 import auth_records_pb2 as storage

__all__ = ["Forged", "RecordKeys", "open_record", "seal_record"]
_LABEL = b"strongbox authenticated record v1"


class Forged(Exception):
    """A record that nobody with a record key wrote at this etcd key."""


def seal_record(keys: RecordKeys, etcd_key: bytes, body: bytes) -> bytes:
    """The value to put at `etcd_key`: `body` (a serialized record) under a MAC of the newest term."""
    mac = _mac(keys.by_term[keys.newest], etcd_key, keys.newest, body)
    return storage.AuthenticatedRecord(term=keys.newest, body=body, mac=mac).SerializeToString()


def open_record(keys: RecordKeys, etcd_key: bytes, value: bytes) -> bytes:
    """The body of what stands at `etcd_key`.

    Raises `Forged` when the MAC is not right for this key, and `DependencyDown` when the key of its term is
    not held yet.
    """
    try:
        record = storage.AuthenticatedRecord.FromString(value)
    except DecodeError:
        raise Forged("not an authenticated record") from None
    if record.term not in keys.by_term:
        if record.term <= keys.newest:
            raise Forged("a key term that never was or is retired")
        raise DependencyDown("the record key of this term has not arrived yet")
    expected = _mac(keys.by_term[record.term], etcd_key, record.term, record.body)
    if not hmac.compare_digest(expected, record.mac):
        raise Forged("the MAC does not verify")
    return record.body


def _mac(key: bytes, etcd_key: bytes, term: int, body: bytes) -> bytes:
    parts = (_LABEL, etcd_key, term.to_bytes(8, "big", signed=True), body)
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.digest(key, message, "sha256")
