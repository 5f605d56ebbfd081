"""Sealing: the state is put in etcd, then every process confirms that it holds nothing any more.

The state is put by one guarded, audited transaction; from its revision on no transaction goes through that
compared the unsealed state. A process that does not confirm cannot use its keys either: a seal replica's
proof runs out within 2 s, and what other services decided before leaves within 2 s or not at all
(`KeyClient.require_unsealed_since`). So after 2 s and a margin for clocks the answer can be given, naming
those that did not confirm (`seal_confirmations`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from services.seal import seal_decisions
from services.seal.custody.freshness_watch import Vigil
from services.seal.custody.held_keys import PROOF_S
from services.seal.custody.seal_confirmations import Confirmations, confirmations, processes_since
from strongbox.access.guard import Guard
from strongbox.audit_outbox.outbox import draft_of
from strongbox.rpc.request_context import Inbound
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, rows_of
from strongbox.store.etcd.errors import EtcdError

PATH = "sys/seal"
MARGIN_S = 0.5
_LOOK_EVERY = 0.05  # seconds
_TOLD = tuple((prefix, keyspace.prefix_end(prefix)) for prefix in (keyspace.SEAL_REPLICAS, keyspace.NODES))


class Sealing:
    """Seals the cluster for a caller."""

    def __init__(self, etcd: Etcd, pipeline: Pipeline, guard: Guard, vigil: Vigil) -> None:
        self._etcd, self._pipeline, self._guard, self._vigil = etcd, pipeline, guard, vigil

    async def seal(self, inbound: Inbound) -> Confirmations:
        """Seal and wait. Raises what the guard raises, NoQuorum, UnknownOutcome."""

        def decide(view: View) -> None:
            self._guard.require(view, inbound, "sudo", PATH)
            seal_decisions.seal(view)
            for start, end in _TOLD:
                view.fetch(start, end)

        work = Work(decide, draft_of(inbound, "Seal", PATH), inbound.deadline, always=True)
        done = await self._pipeline.submit(work)
        until = min(time.monotonic() + PROOF_S + MARGIN_S, inbound.deadline - 0.2)
        self._vigil.look_now()
        recent = await processes_since(self._etcd, self._vigil.revisions, until)
        found = confirmations(done.rows, recent or ())
        # Without `recent` there may be processes unseen: wait as long as for one that does not confirm.
        while (found.unconfirmed or recent is None) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_EVERY)
            found = await self._look(until, recent or ()) or found
        return found

    async def _look(self, until: float, recent: Iterable[str]) -> Confirmations | None:
        look = txn.txn([], [txn.range_(start, end) for start, end in _TOLD])
        try:
            reply = await self._etcd.transact(look, deadline=until, idempotent=True)
        except EtcdError:
            return None
        rows = (row for part in reply.responses for row in rows_of(part.response_range))
        return confirmations(rows, recent)
