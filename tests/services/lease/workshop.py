"""The lease service's parts over a real etcd and a real PostgreSQL, in a process that may be killed anywhere.

Everything that is random elsewhere (record keys, the key that wraps) is fixed here, so that the process which
dies and the one that looks after it are the same cluster.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from services.lease import credential_lease
from services.lease.connections.connection_passwords import PURPOSE
from services.lease.connections.rotate_root import Rotation
from services.lease.connections.server_cache import Databases
from services.lease.credentials.issue import Issuer
from services.lease.duties.reaper import Reaper
from services.lease.duties.reconciler import Reconciler
from services.lease.guarded_call import Calls
from services.lease.leases.renew import Renewer
from services.lease.leases.revoke import Revoker
from services.lease.metrics import Measures
from services.lease.revocation_backoff import Backoff
from services.lease.servicer import LeaseServicer
from strongbox.access.authenticated_records import RecordKeys, open_record
from strongbox.access.guard import Guard
from strongbox.access.token_format import new_root_token
from strongbox.audit_outbox.outbox import Outbox
from strongbox.crypto.aead import Aead
from strongbox.crypto.envelope import Dek, WrappedDek, unwrap_dek, wrap_dek
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease_records import counters, index
from strongbox.rpc.request_context import Inbound, bind
from strongbox.storage.v1 import audit_records_pb2 as audit
from strongbox.store import keyspace
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.lease.support import Fence
from tests.support.access import FakeKeys

KEYS = RecordKeys({1: b"k" * 32}, 1)
CLUSTER_ID = "workshop"


class FixedSeal:
    """As strongbox.rpc.key_client.KeyClient, with a KEK that every process of the test knows."""

    def __init__(self) -> None:
        self._kek = Aead(b"K" * 32)

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        return [wrap_dek(self._kek, PURPOSE, 1, dek) for dek in deks]

    async def unwrap(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        return [unwrap_dek(self._kek, PURPOSE, one) for one in wrapped]


class ShiftedClock:
    """This machine's time, moved."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + round(self.ahead_s * 1000)

    def monotonic(self) -> float:
        return time.monotonic()


class ShiftedReaper(Reaper):
    """For which a clock that was moved is the cluster's time."""

    clock: ShiftedClock

    async def now_ms(self, term: Fence) -> int:
        return self.clock.now_ms()


class Workshop:
    """One replica's parts; `ahead_s`: how far its clock is."""

    def __init__(self, endpoints: Sequence[str], root: str, ahead_s: float = 0.0) -> None:
        self.endpoints, self.root = list(endpoints), root
        self.etcd, self.clock = Etcd(endpoints), ShiftedClock(ahead_s)
        self.pipeline = Pipeline(self.etcd, Memory(), Outbox("lease"), self.clock)
        self.guard, seal = Guard(FakeKeys(KEYS)), FixedSeal()
        self.databases = Databases(seal)
        self.calls = Calls(self.pipeline, self.guard)
        self.measures = Measures(CollectorRegistry())
        self.revoker = Revoker(
            self.pipeline, self.guard.lookup, self.databases, Backoff(200, 400), self.measures
        )
        self.servicer = LeaseServicer(
            self.calls,
            self.revoker,
            Renewer(self.calls, self.databases),
            Issuer(self.calls, self.databases, self.measures),
            Rotation(self.calls, self.databases, seal),
            seal,
            self.databases,
        )
        lookup = self.guard.lookup
        self.reaper = ShiftedReaper(self.pipeline, lookup, self.revoker, self.measures)
        self.reaper.clock = self.clock
        self.reconciler = Reconciler(self.calls, self.databases, self.measures, 60.0)
        self.fence = Fence()

    async def call(self, name: str, /, **fields: Any) -> Any:
        """A request by the root token. Raises StrongBoxError."""
        bind(Inbound(self.root, "request", "127.0.0.1", "", time.monotonic() + 4.5))
        request = getattr(pb, f"{name}Request")(**fields)
        return await getattr(self.servicer, name)(request, None)

    async def grants(self) -> dict[str, credential_lease.Record]:
        """All credentials' leases that etcd holds, by id."""
        rows = (await self.etcd.range(keyspace.GRANTS, keyspace.prefix_end(keyspace.GRANTS))).rows
        return {
            row.key.removeprefix(keyspace.GRANTS).decode(): credential_lease.Record.FromString(
                open_record(KEYS, row.key, row.value)
            )
            for row in rows
        }

    async def recorded(self, op: str) -> list[audit.OutboxEntry]:
        """The audit records of an operation that are in the outbox."""
        rows = (await self.etcd.range(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX))).rows
        entries = (entry for row in rows for entry in audit.OutboxRecord.FromString(row.value).entries)
        return [entry for entry in entries if entry.op == op]

    async def require_counted(self) -> None:
        """Counters and indexes say what the records say."""
        known = await self.grants()
        live = [record for record in known.values() if credential_lease.is_live(record)]
        prefix = keyspace.LEASE_COUNTS + b"connection/"
        rows = (await self.etcd.range(prefix, keyspace.prefix_end(prefix))).rows
        assert sum(int(row.value) for row in rows) == len(live)
        for record in known.values():
            entry = index.due_key(credential_lease.due_ms(record), record.id)
            assert await self.etcd.get(entry) is not None, "nothing would ever look at it again"
        for role in {record.role for record in known.values()}:
            row = await self.etcd.get(counters.role_key(role))
            assert int(row.value if row else 0) == sum(record.role == role for record in live)


@contextlib.asynccontextmanager
async def workshop(endpoints: Sequence[str], root: str, ahead_s: float = 0.0) -> AsyncIterator[Workshop]:
    """Started, and closed."""
    made = Workshop(endpoints, root, ahead_s)
    await made.pipeline.start()
    try:
        yield made
    finally:
        made.databases.close()
        await made.pipeline.close()
        await made.etcd.close()


async def found_cluster(endpoints: Sequence[str]) -> str:
    """Make an empty etcd an unsealed cluster; returns its root token."""
    root, puts = new_root_token(KEYS, time.time_ns() // 1_000_000)
    puts |= {keyspace.SEAL_STATE: b"unsealed:1", keyspace.CLUSTER_ID: CLUSTER_ID.encode()}
    puts[keyspace.CLUSTER_TIME] = b"%020d" % (time.time_ns() // 1_000_000)
    etcd = Etcd(endpoints)
    await etcd.transact(txn.txn([], [txn.put(*pair) for pair in puts.items()]), idempotent=True)
    await etcd.close()
    return root


def ours(roles: dict[str, str]) -> dict[str, str]:
    """Of the roles in a server (name: comment), those of this cluster: lease id by name."""
    mark = f"strongbox:{CLUSTER_ID}:"
    return {name: text.removeprefix(mark) for name, text in roles.items() if text.startswith(mark)}


def require_invariant(known: dict[str, credential_lease.Record], roles: dict[str, str]) -> None:
    """No role without a lease, an intent or a pending revocation; no REVOKED lease with a living role."""
    for name, lease_id in ours(roles).items():
        record = known.get(lease_id)
        assert record is not None, f"the role {name} has no lease"
        assert record.state != credential_lease.REVOKED, f"the role {name} lives, its lease is REVOKED"
