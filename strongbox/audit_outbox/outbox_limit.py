"""The outbox is bounded: past the bound audited requests are refused, with the reason, until it is trimmed.

Two measures, each from what the audit duty publishes once a second:
* of this producer, the records it put after the mark (`audit/mark`: all up to its revision is trimmed), and
  their bytes: a record packs all operations of a part of a batch, so one may be 100 bytes or a mebibyte;
* of everybody, `audit/backlog`: how many records wait, and of how many bytes together.
The first grows without a live duty too, so while all audit services are dead this producer stops after `OWN`
records or `OWN_BYTES`; the second stops all producers together. Both do so before a request is decided. A
published figure may be a second old, so the bound is exceeded by at most what is put in that second. Figures
that cannot be parsed are ignored: the last ones stay in force.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

import structlog
from google.protobuf.message import DecodeError

from strongbox.errors import Overloaded
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, rows_of
from strongbox.store.etcd.errors import EtcdError

OWN = 10_000  # records of one producer
OWN_BYTES = 40 << 20  # of its records: 280,000 operations of some 150 bytes
ALL = 50_000  # records of all producers together
ALL_BYTES = 200 << 20  # of all their records; etcd's quota (2 GiB unless set) has its own guard: store/space
PERIOD = 1.0  # seconds between two looks at what the duty published
_log = structlog.get_logger(__name__)


class Bound:
    """What one producer has put and nobody has trimmed yet."""

    def __init__(
        self, own: int = OWN, everybody: int = ALL, own_bytes: int = OWN_BYTES, all_bytes: int = ALL_BYTES
    ) -> None:
        self._limit_own, self._limit_all, self._limit_bytes = own, everybody, own_bytes
        self._limit_all_bytes = all_bytes
        self._batches: deque[tuple[int, int, int]] = deque()  # (etcd revision, records, bytes), oldest first
        self._own = self._bytes = 0
        self._all = self._all_bytes = 0
        self._was_junk = False

    @property
    def is_full(self) -> bool:
        """Whether no audited request may be taken."""
        is_full = self._own >= self._limit_own or self._bytes >= self._limit_bytes
        return is_full or self._all >= self._limit_all or self._all_bytes >= self._limit_all_bytes

    def require_room(self) -> None:
        """Raise `Overloaded` when no audited request may be taken."""
        if self.is_full:
            raise Overloaded("the audit outbox is full: no audit replica has taken its records over")

    def put(self, revision: int, records: int, size: int) -> None:
        """A batch with so many records, of `size` bytes together, was committed at `revision`."""
        if records:
            self._batches.append((revision, records, size))
            self._own += records
            self._bytes += size

    def published(self, trimmed_to: int, backlog: int, size: int = 0) -> None:
        """Take the duty's figures: up to which etcd revision is trimmed, and what all producers have left.

        `backlog`: records; `size`: their bytes together.
        """
        while self._batches and self._batches[0][0] <= trimmed_to:
            _, records, size = self._batches.popleft()
            self._own -= records
            self._bytes -= size
        self._all, self._all_bytes = backlog, size

    async def follow(self, etcd: Etcd) -> None:
        """Keep looking at what the duty publishes, for ever."""
        while True:
            await asyncio.sleep(PERIOD)
            look = txn.txn([], [txn.range_(keyspace.AUDIT_MARK), txn.range_(keyspace.AUDIT_BACKLOG)])
            try:
                seen = await etcd.transact(look, deadline=time.monotonic() + PERIOD, idempotent=True)
            except EtcdError:
                continue  # without etcd nothing can be put either
            mark, backlog = (rows_of(part.response_range) for part in seen.responses)
            self._take(mark[0].value if mark else b"", backlog[0].value if backlog else b"")

    def _take(self, mark: bytes, backlog: bytes) -> None:
        try:
            position = storage.ChainPosition.FromString(mark)
            left = storage.Backlog.FromString(backlog)
        except DecodeError:
            if not self._was_junk:
                _log.error("what etcd holds of the audit outbox cannot be read")
            self._was_junk = True
            return
        self._was_junk = False
        self.published(position.revision, left.records, left.bytes)
