"""Renewing: first in PostgreSQL, then in the lease, so that a lease never outlives its password."""

from __future__ import annotations

import time

from services.lease import credential_lease
from services.lease.connections.server_cache import Databases
from services.lease.guarded_call import Calls
from services.lease.leases.lease_decisions import ROOT, Leases, Renewal, Told
from services.lease.postgres import login_roles
from services.lease.postgres.connection_pool import Desk
from services.lease.postgres.errors import PostgresFailure
from services.lease.postgres.login_roles import Role, comment_of
from strongbox.access.guard import Caller
from strongbox.errors import DependencyDown, InvalidInput, StrongBoxError
from strongbox.rpc.request_context import Inbound
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

OP = "RenewLease"
PATIENCE = 2.5  # seconds for PostgreSQL
RESERVE = 0.8  # seconds of a request kept for what follows


class Renewer:
    """Renews leases."""

    def __init__(self, calls: Calls, databases: Databases) -> None:
        self._calls, self._databases, self._leases = calls, databases, Leases(calls.guard)

    async def renew(self, inbound: Inbound, name: str, increment_s: int | None) -> Told:
        """Move a lease's expiry. Raises StrongBoxError."""

        def plan(view: View, caller: Caller) -> tuple[Renewal, str, int]:
            found = self._leases.renewal(view, caller, name, increment_s)
            return found, (view.get(keyspace.CLUSTER_ID).value or b"").decode(), view.now_ms

        planned = await self._calls.allowed(inbound, plan)
        until_ms = 0
        if not isinstance(planned, StrongBoxError):
            renewal, cluster_id, now_ms = planned
            until_ms = renewal.expires_ms
            if renewal.connection is not None:
                await self._tell(inbound, renewal, cluster_id, now_ms)

        def decide(view: View, caller: Caller) -> Told:
            return self._leases.renew(view, caller, name, increment_s, until_ms)

        return (await self._calls.act(inbound, OP, ROOT, decide)).value

    async def _tell(self, inbound: Inbound, renewal: Renewal, cluster_id: str, now_ms: int) -> None:
        record, stored = renewal.told.record, renewal.connection
        assert isinstance(record, credential_lease.Record)
        assert stored is not None
        role = Role(record.username, comment_of(cluster_id, record.id))
        ttl_s = max(1, -(-(renewal.expires_ms - now_ms) // 1000))

        def job(desk: Desk) -> bool:
            return login_roles.renew(desk.session, role, ttl_s)

        left = inbound.deadline - time.monotonic() - RESERVE
        refusal: StrongBoxError
        try:
            if await self._databases.at(stored).run(job, min(PATIENCE, max(0.1, left))):
                return
            refusal = InvalidInput(
                "the role of the lease does not exist any more; the lease is about to be closed"
            )
        except PostgresFailure as error:
            refusal = DependencyDown(str(error))
        raise await self._calls.refuse(inbound, OP, ROOT + record.path, refusal)
