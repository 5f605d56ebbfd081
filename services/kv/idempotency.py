"""The same request again gets the first answer: the last 16 operations of a secret, kept in its head.

Rules:
* An operation is known by (accessor, idempotency key) for as long as it is among the last 16; without a key
  by (accessor, request id) for 10 s: request ids are made by the gateway, for its own retries.
* The request is compared by an HMAC under a record key, so that the head tells nothing of it. The same
  idempotency key with another request is an error; the same request id with another request is another
  operation.
* When the HMAC's key term is retired, requests can no longer be compared: the idempotency key alone names the
  operation.
* An operation's revision is not known when it is put; the next change of the record writes it down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from strongbox.crypto.aead import is_equal, mac
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import IdempotencyMismatch, InvalidInput
from strongbox.storage.v1 import kv_records_pb2 as storage

if TYPE_CHECKING:
    from strongbox.rpc.request_context import Inbound

KEPT = 16
REQUEST_ID_MS = 10_000
MAX_KEY = 128  # characters
_LABEL = "kv request v1"

Operation = storage.StoredOperation


class Asked:
    """One request that changes something, compared with the operations that are remembered."""

    def __init__(self, op: str, request: Message, inbound: Inbound) -> None:
        """Raises `InvalidInput` for an idempotency key that is too long or not printable."""
        key = inbound.idempotency_key
        if len(key) > MAX_KEY or not key.isprintable():
            raise InvalidInput(f"an idempotency key has at most {MAX_KEY} printable characters")
        self.op, self._key, self._request_id = op, key, inbound.request_id
        self._content = request.SerializeToString(deterministic=True)
        self._macs: dict[int, bytes] = {}

    def first(
        self, operations: Iterable[Operation], keys: RecordKeys, accessor: str, now_ms: int
    ) -> Operation | None:
        """The operation that this request repeats. Raises `IdempotencyMismatch`."""
        for known in operations:
            if known.accessor != accessor or not self._names(known, now_ms):
                continue
            if self._is_same(known, keys):
                return known
            if self._key:
                raise IdempotencyMismatch
        return None

    def operation(self, keys: RecordKeys, accessor: str, now_ms: int, versions: Sequence[int]) -> Operation:
        """The record of this request, carried out now with this result."""
        return Operation(
            op=self.op,
            idempotency_key=self._key,
            request_id=self._request_id,
            accessor=accessor,
            mac_term=keys.newest,
            mac=self._mac(keys, keys.newest),
            at_ms=now_ms,
            versions=versions,
        )

    def _names(self, known: Operation, now_ms: int) -> bool:
        if self._key:
            return known.idempotency_key == self._key
        recent = now_ms - known.at_ms < REQUEST_ID_MS
        return recent and bool(self._request_id) and known.request_id == self._request_id

    def _is_same(self, known: Operation, keys: RecordKeys) -> bool:
        if known.op != self.op:
            return False
        if known.mac_term < min(keys.by_term):  # retired: the idempotency key alone has to be enough
            return bool(self._key)
        if known.mac_term not in keys.by_term:
            return False
        return is_equal(known.mac, self._mac(keys, known.mac_term))

    def _mac(self, keys: RecordKeys, term: int) -> bytes:
        if term not in self._macs:
            self._macs[term] = mac(keys.by_term[term], _LABEL, self.op, self._content)
        return self._macs[term]


def remembered(operations: Sequence[Operation], newest: Operation | None, revision: int) -> list[Operation]:
    """The operations to keep; `revision`: the last change's, given to operations that have none."""
    kept = []
    for known in operations:
        copy = Operation()
        copy.CopyFrom(known)
        copy.revision = known.revision or revision
        kept.append(copy)
    if newest is not None:
        kept.append(newest)
    return kept[-KEPT:]


def revision_of(operation: Operation, record_revision: int) -> int:
    """The etcd revision at which a known operation was carried out."""
    return operation.revision or record_revision
