"""Builders of etcd transactions: compares, operations, and the two joined.

Rules that etcd enforces or, worse, does not (measured with 3.5.30):
* All compares, nested ones included, are evaluated before any operation runs.
* One key may be put once per transaction; a put and a delete of one key in *sibling* nested parts can be
  accepted and lose the put. The pipeline keeps such writes apart; nothing here checks it.
* Nested puts escape the space quota, so every transaction that grows the store needs one plain top-level put.
* Operations count per level: outer + nested ≤ `--max-txn-ops`.

Only this module, client.py and endpoints.py name etcd's generated messages.
"""

from __future__ import annotations

from collections.abc import Iterable

from etcd3.etcdrpc.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)

__all__ = [
    "Compare",
    "RequestOp",
    "ResponseOp",
    "TxnRequest",
    "TxnResponse",
    "create_is",
    "delete",
    "lease_is",
    "mod_is",
    "nested",
    "prefix_end",
    "put",
    "range_",
    "txn",
    "value_is",
    "value_less",
]


def mod_is(key: bytes, revision: int) -> Compare:
    """True when `key` was last changed at `revision`; 0 means it does not exist."""
    return Compare(result=Compare.EQUAL, target=Compare.MOD, key=key, mod_revision=revision)


def create_is(key: bytes, revision: int) -> Compare:
    """True when `key` was created at `revision`; 0 means it does not exist."""
    return Compare(result=Compare.EQUAL, target=Compare.CREATE, key=key, create_revision=revision)


def lease_is(key: bytes, lease: int) -> Compare:
    """True when `key` is attached to the etcd lease `lease`."""
    return Compare(result=Compare.EQUAL, target=Compare.LEASE, key=key, lease=lease)


def value_is(key: bytes, value: bytes) -> Compare:
    """True when `key` exists and holds `value`."""
    return Compare(result=Compare.EQUAL, target=Compare.VALUE, key=key, value=value)


def value_less(key: bytes, value: bytes) -> Compare:
    """True when `key` exists and its value sorts (as bytes) before `value`; false when it is absent."""
    return Compare(result=Compare.LESS, target=Compare.VALUE, key=key, value=value)


def put(key: bytes, value: bytes, lease: int = 0) -> RequestOp:
    """Write `value`, attached to the etcd lease `lease` (0: to none)."""
    return RequestOp(request_put=PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes, end: bytes = b"") -> RequestOp:
    """Delete `key`, or the half-open range [key, end)."""
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end))


def range_(
    key: bytes, end: bytes = b"", limit: int = 0, keys_only: bool = False, revision: int = 0
) -> RequestOp:
    """Read `key`, or [key, end) in key order. `revision` 0 is the newest.

    `limit` does not bound etcd's work.
    """
    return RequestOp(
        request_range=RangeRequest(
            key=key, range_end=end, limit=limit, keys_only=keys_only, revision=revision
        )
    )


def txn(
    compares: Iterable[Compare], success: Iterable[RequestOp] = (), failure: Iterable[RequestOp] = ()
) -> TxnRequest:
    """If every compare holds then `success` else `failure`, atomically."""
    return TxnRequest(compare=compares, success=success, failure=failure)


def nested(
    compares: Iterable[Compare], success: Iterable[RequestOp] = (), failure: Iterable[RequestOp] = ()
) -> RequestOp:
    """A transaction as one operation of another."""
    return RequestOp(request_txn=txn(compares, success, failure))


def prefix_end(prefix: bytes) -> bytes:
    """The `end` that makes [prefix, end) all keys starting with `prefix` (which must not be all 0xff)."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1])
