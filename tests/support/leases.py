"""Leases put straight into etcd, thousands at a time, as the service's own code would have written them."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable

from services.lease import credential_lease, repository
from strongbox.crypto.record_keys import RecordKeys
from strongbox.lease_records import read_lease
from strongbox.lease_records.counters import Tally
from strongbox.store.decisions.cache import ABSENT, Memory, Remembered
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd

TOGETHER = 150  # leases put by one transaction: at most 750 operations
Put = Callable[[View, Tally], None]


class Nothing(Memory):
    """Of a store where nothing stands: no decision has to read."""

    def recall(self, key: bytes) -> Remembered:
        return super().recall(key) or Remembered(ABSENT, 0, time.monotonic())


def grant(
    number: int, accessor: str, issued_ms: int, expires_ms: int, name: str = "bench"
) -> credential_lease.Record:
    """An ACTIVE credential's lease of the role and connection `name`; no two have the same `number`."""
    lease_id = "p" + hashlib.sha256(b"%d" % number).hexdigest()[:40]
    return credential_lease.Record(
        id=lease_id, path=f"dynamic-postgres/{name}", accessor=accessor, state=credential_lease.ACTIVE,
        role=name, connection=name, username=credential_lease.username_of(lease_id), ttl_s=3600,
        issued_ms=issued_ms, expires_ms=expires_ms, max_expires_ms=expires_ms + 86_400_000,
    )  # fmt: skip


def putting_grant(keys: RecordKeys, record: credential_lease.Record) -> Put:
    """Put a credential's lease."""
    return lambda view, tally: repository.put_grant(view, keys, record, None, tally)


def putting_read(keys: RecordKeys, record: read_lease.Record) -> Put:
    """Put a read lease."""
    return lambda view, tally: read_lease.put(view, keys, record, None, tally)


async def seed(etcd: Etcd, puts: Iterable[Put], now_ms: int) -> None:
    """Put leases that are new to the store, and last of all the counters that count them."""
    tally, rest = Tally(), iter(puts)
    while some := list(itertools.islice(rest, TOGETHER)):
        view = View(Nothing(), None, now_ms)
        for put in some:
            put(view, tally)
        await _carry_out(etcd, view)
    counted = View(Nothing(), None, now_ms)
    tally.settle(counted)
    await _carry_out(etcd, counted)


async def _carry_out(etcd: Etcd, view: View) -> None:
    operations = [txn.put(*pair) for pair in view.footprint.puts.items()]
    for start in range(0, len(operations), 900):
        some = operations[start : start + 900]
        await etcd.transact(txn.txn([], some), deadline=time.monotonic() + 30, idempotent=True)
