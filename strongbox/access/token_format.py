"""Tokens: how they look, how they are found, and the record of each.

* A token is `sb.` and 32 random bytes in base64url. It is in no etcd key, no record and no log: its record
  stands under `digest(token)`, SHA-256 under a domain label. 256 random bits need no slow hash.
* The digest is the lookup: no secret is compared byte by byte with anything, so nothing can be timed.
* An accessor is 24 random url-safe characters made separately. It names the token in answers and logs and
  grants nothing by itself.
* The root token has the built-in policy `root`, no parent and no expiry.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from strongbox.access.authenticated_records import RecordKeys, seal_record
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace

ROOT_POLICY = "root"
DEFAULT_POLICY = "default"
_TOKEN = re.compile(r"sb\.[A-Za-z0-9_-]{43}\Z")
_ACCESSOR = re.compile(r"[A-Za-z0-9_-]{24}\Z")
_LABEL = b"strongbox token v1\0"


def new_token() -> str:
    """`sb.` and 43 characters that hold 32 bytes from the operating system's generator."""
    return "sb." + secrets.token_urlsafe(32)


def new_accessor() -> str:
    """24 characters that hold 18 random bytes."""
    return secrets.token_urlsafe(18)


def is_token(text: str) -> bool:
    """Whether `text` has the form of a token; what has not is never looked up."""
    return _TOKEN.match(text) is not None


def is_accessor(text: str) -> bool:
    """Whether `text` has the form of an accessor."""
    return _ACCESSOR.match(text) is not None


def digest(token: str) -> str:
    """64 hex digits: SHA-256 over a domain label and the token."""
    return hashlib.sha256(_LABEL + token.encode("utf-8", "surrogatepass")).hexdigest()


def root_record(now_ms: int) -> storage.TokenRecord:
    """The record of a fresh root token: everything allowed, no parent, no expiry."""
    return storage.TokenRecord(
        accessor=new_accessor(),
        policies=[ROOT_POLICY],
        created_ms=now_ms,
        display_name="root",
        orphan=True,
    )


def new_root_token(keys: RecordKeys, now_ms: int) -> tuple[str, dict[bytes, bytes]]:
    """A fresh root token and what to put in etcd for it, by key."""
    token = new_token()
    return token, token_puts(keys, digest(token), root_record(now_ms))


def token_puts(keys: RecordKeys, token_digest: str, record: storage.TokenRecord) -> dict[bytes, bytes]:
    """What to put in etcd for a token: its record, and its digest under its accessor."""
    key = keyspace.token(token_digest)
    return {
        key: seal_record(keys, key, record.SerializeToString(deterministic=True)),
        keyspace.accessor(record.accessor): token_digest.encode(),
    }
