"""Sealing: the decree in etcd, then word from every replica that it holds nothing any more.

The decree is one guarded, audited transaction; from its revision on no transaction that compares the seal
state goes through anywhere. A replica that says nothing cannot use its keys either: its proof runs out 2 s
after the decree. So after 2 s and a margin for its clock the answer can be given, naming those who did not
confirm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple

from services.seal import unseal
from services.seal.custody import PROOF_S
from services.seal.vigil import Vigil
from strongbox.access.guard import Guard
from strongbox.rpc.inbound import Inbound
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.client import Etcd
from strongbox.store.errors import EtcdError
from strongbox.store.pipeline import Pipeline, Work
from strongbox.store.view import View
from strongbox.trail.outbox import draft_of

PATH = "sys/seal"
MARGIN_S = 0.5
_LOOK_EVERY = 0.05  # seconds
_REPLICAS = (keyspace.SEAL_REPLICAS, keyspace.prefix_end(keyspace.SEAL_REPLICAS))


class Confirmations(NamedTuple):
    """The nodes that hold nothing, and those that did not say so in time."""

    confirmed: tuple[str, ...]
    unconfirmed: tuple[str, ...]


class Sealing:
    """Seals the cluster on somebody's word."""

    def __init__(self, etcd: Etcd, pipeline: Pipeline, guard: Guard, vigil: Vigil) -> None:
        self._etcd, self._pipeline, self._guard, self._vigil = etcd, pipeline, guard, vigil

    async def seal(self, inbound: Inbound) -> Confirmations:
        """Seal and wait. Raises what the guard raises, NoQuorum, UnknownOutcome."""

        def decide(view: View) -> None:
            self._guard.require(view, inbound, "sudo", PATH)
            unseal.seal(view)
            view.fetch(*_REPLICAS)

        work = Work(decide, draft_of(inbound, "Seal", PATH), inbound.deadline, always=True)
        done = await self._pipeline.submit(work)
        until = min(time.monotonic() + PROOF_S + MARGIN_S, inbound.deadline - 0.2)
        self._vigil.look_now()
        found = confirmations(row.value for row in done.rows)
        while found.unconfirmed and time.monotonic() < until:
            await asyncio.sleep(_LOOK_EVERY)
            found = await self._look(until) or found
        return found

    async def _look(self, until: float) -> Confirmations | None:
        try:
            found = await self._etcd.range(*_REPLICAS, deadline=until)
        except EtcdError:
            return None
        return confirmations(row.value for row in found.rows)


def confirmations(records: Iterable[bytes]) -> Confirmations:
    """By what the replicas say of themselves; who was killed while he held a key has confirmed nothing."""
    told = sorted((storage.SealReplica.FromString(record) for record in records), key=lambda one: one.node)
    return Confirmations(
        tuple(one.node for one in told if not one.holds), tuple(one.node for one in told if one.holds)
    )
