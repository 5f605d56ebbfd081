"""The audit outbox: how a record of an operation is packed into the transaction of its effect.

* One producer is one process: `<service>/<incarnation>`, the incarnation being 16 random hex digits of this
  start.
* An incarnation ends with its process; the audit duty then removes its cursor. A process that was believed
  gone and was not (stopped for a minute) goes on as a new incarnation.
* One etcd record holds the operations of one part of one batch, in order, at
  `audit/outbox/<service>/<incarnation>/<batch:016d>/<part:04d>`; the producer's cursor counts the batches
  without gaps, so audit replicas see every one that is missing.
* A record never holds a value, a token, a share or a key: `Draft` has no place for one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from strongbox.audit_outbox.outbox_limit import Bound
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft


def new_incarnation() -> str:
    """16 hex digits, random: no two starts of a process ever share a cursor."""
    return secrets.token_hex(8)


def draft_of(inbound: Inbound, op: str, path: str) -> Draft:
    """A request's audit record before anything is decided; `op`: the RPC's name, `path`: the policy path."""
    return Draft(op=op, path=path, request_id=inbound.request_id, client=inbound.client)


class Outbox:
    """The pipeline's journal (strongbox.store.decisions.audit_journal.Journal) for one producer."""

    def __init__(self, service: str, incarnation: str | None = None) -> None:
        self.service = service
        self.incarnation = incarnation or new_incarnation()
        self.bound = Bound()

    @property
    def cursor_key(self) -> bytes:
        """The key that every batch of this producer moves."""
        return keyspace.cursor(self.service, self.incarnation)

    @property
    def producer(self) -> str:
        """What entries name: `<service>/<incarnation>`."""
        return f"{self.service}/{self.incarnation}"

    def begin_anew(self) -> None:
        """The audit duty closed this incarnation, which was silent for too long: take another."""
        self.incarnation = new_incarnation()

    def require_room(self) -> None:
        """Raise `Overloaded` when the outbox is full (see strongbox.audit_outbox.outbox_limit)."""
        self.bound.require_room()

    def committed(self, revision: int, records: int, size: int) -> None:
        """A batch left so many records, of `size` bytes together, at `revision`."""
        self.bound.put(revision, records, size)

    def batch_prefix(self, batch: int) -> bytes:
        """The prefix of all records of one batch."""
        return keyspace.outbox_batch(self.service, self.incarnation, batch)

    def record_key(self, batch: int, part: int) -> bytes:
        """The key of one part's record."""
        return keyspace.outbox_record(self.service, self.incarnation, batch, part)

    def pack(self, drafts: Sequence[Draft]) -> bytes:
        """One part's operations as an OutboxRecord; their place in it is the `item` of producer_seq."""
        return storage.OutboxRecord(entries=[_entry(draft) for draft in drafts]).SerializeToString()


def _entry(draft: Draft) -> storage.OutboxEntry:
    return storage.OutboxEntry(
        ts_ms=draft.ts_ms,
        request_id=draft.request_id,
        accessor=draft.accessor,
        op=draft.op,
        path=draft.path,
        version=draft.version,
        outcome=draft.outcome,
        reason=draft.reason,
        client=draft.client,
    )
