"""A lease service over a fake store, with leases that reads have left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from prometheus_client import CollectorRegistry

from services.lease.connections.connection_passwords import PURPOSE
from services.lease.connections.rotate_root import Rotation
from services.lease.connections.server_cache import Databases
from services.lease.credentials.issue import Issuer
from services.lease.guarded_call import Calls
from services.lease.leases.renew import Renewer
from services.lease.leases.revoke import Revoker
from services.lease.metrics import Measures
from services.lease.revocation_backoff import Backoff
from services.lease.servicer import LeaseServicer
from strongbox.access.guard import Guard
from strongbox.access.token_format import digest
from strongbox.access.token_groups import groups_of
from strongbox.crypto.aead import Aead, new_key
from strongbox.crypto.envelope import Dek, WrappedDek, unwrap_dek, wrap_dek
from strongbox.errors import Sealed
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease_records import read_lease
from strongbox.rpc.request_context import Inbound, bind
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from tests.support.access import FakeCluster
from tests.support.border import answered
from tests.support.pipeline import FakePipeline


class Fence:
    """A term that lasts, or is over."""

    over = False

    def require(self, view: View, /) -> None:
        if self.over:
            raise PermissionError("deposed")

    def progress(self) -> None:
        """Nobody looks."""


class FakeSeal:
    """As strongbox.rpc.key_client.KeyClient, with one KEK here."""

    def __init__(self) -> None:
        self._kek = Aead(new_key())

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        return [wrap_dek(self._kek, PURPOSE, 1, dek) for dek in deks]

    async def unwrap(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        return [unwrap_dek(self._kek, PURPOSE, one) for one in wrapped]


class Lease(FakeCluster):
    """The service; every call is by `token`, the root token unless said."""

    def __init__(self) -> None:
        super().__init__()
        self.pipeline = FakePipeline(self.store)
        self.guard = Guard(self.source)
        self.fence = Fence()
        self.sealed_at: float | None = None
        self.measures = Measures(CollectorRegistry())
        self.envelopes = FakeSeal()
        self.databases = Databases(self.envelopes)
        calls = Calls(cast("Any", self.pipeline), self.guard)
        self.calls = calls
        self.revoker = Revoker(
            cast("Any", self.pipeline), self.guard.lookup, self.databases, Backoff(), self.measures
        )
        self.servicer = LeaseServicer(
            calls,
            self.revoker,
            Renewer(calls, self.databases),
            Issuer(calls, self.databases, self.measures),
            Rotation(calls, self.databases, self.envelopes),
            self.envelopes,
            self.databases,
        )

    async def call(self, name: str, token: str = "", /, **fields: Any) -> Any:
        bind(Inbound(token or self.root, "request", "127.0.0.1", "", time.monotonic() + 4.5))
        request = getattr(pb, f"{name}Request")(**fields)
        return await answered(self.servicer, name, request, self.require_unsealed_since)

    def require_unsealed_since(self, proven: float) -> None:
        """As KeyClient's; `sealed_at`: when the keys were dropped."""
        if self.sealed_at is not None and self.sealed_at >= proven:
            raise Sealed

    def hold(self, token: str, path: str, ttl_s: int = 0) -> str:
        """As a read by `token` leaves it; returns the id."""
        expires_ms = self.store.now_ms + ttl_s * 1000 if ttl_s else 0
        record = self.guard.lookup.token(self.store.view(), digest(token))
        assert record is not None
        reader = read_lease.Reader(record.accessor, groups_of(record), expires_ms)
        done = self.store.run(lambda v: read_lease.hold(v, self.keys, reader, path))
        return cast("read_lease.Held", done.value).id

    def state(self, name: str) -> str:
        """`gone` when there is none."""
        record = read_lease.find(self.store.view(), self.keys, name)
        return read_lease.state_of(record, self.store.now_ms) if record is not None else "gone"

    def reader(self, **rules: str) -> str:
        """A token with one policy: path (`__ALL` for `/*`, `__` for `/`) = capabilities."""
        name = f"p{len(self.store.facts)}"
        plain = {path.replace("__ALL", "/*").replace("__", "/"): text for path, text in rules.items()}
        self.put_policy(name, plain)
        return self.add_token(policies=[name])

    def accessor_of(self, token: str) -> str:
        record = self.guard.lookup.token(self.store.view(), digest(token))
        assert record is not None
        return record.accessor

    def index(self) -> list[bytes]:
        """Every key of the lease service."""
        return self.store.keys(keyspace.ROOT + b"lease/")
