"""One replica's pipeline on a real etcd, and small decisions for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import SystemClock
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.decisions.view import View
from strongbox.store.decisions.work import Work
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.endpoints import Options


class Replica:
    """One pipeline with its own memory, client and cursor."""

    def __init__(self, endpoints: list[str], attempt: float = 0.4) -> None:
        self.etcd = Etcd(endpoints, options=Options(attempt=attempt))
        self.memory = Memory()
        self.outbox = Outbox("kv")
        self.pipeline = Pipeline(self.etcd, self.memory, self.outbox, SystemClock())

    async def act(
        self,
        decide: Callable[[View], object],
        *,
        accessor: str = "me",
        seconds: float = 10.0,
        name: str = "op",
    ) -> object:
        """Submit one audited decision that authenticates as `accessor` (empty: never does)."""

        def authenticated(view: View) -> object:
            if view.draft is not None:
                view.draft.accessor = accessor
            return decide(view)

        draft = Draft(op=name, path="secret/x", request_id="r", client="c")
        work = Work(authenticated, draft, time.monotonic() + seconds)
        return (await self.pipeline.submit(work)).value

    async def records(self) -> list[storage.OutboxEntry]:
        """Every operation this replica left in the outbox."""
        prefix = keyspace.OUTBOX + f"kv/{self.outbox.incarnation}/".encode()
        rows = (await self.etcd.range(prefix, keyspace.prefix_end(prefix))).rows
        return [entry for row in rows for entry in storage.OutboxRecord.FromString(row.value).entries]


@asynccontextmanager
async def running(endpoints: list[str], attempt: float = 0.4) -> AsyncIterator[Replica]:
    replica = Replica(endpoints, attempt)
    await replica.pipeline.start()
    try:
        yield replica
    finally:
        await replica.pipeline.close()
        await replica.etcd.close()


def increment(key: bytes) -> Callable[[View], int]:
    def decide(view: View) -> int:
        value = int(view.get(key).value or b"0") + 1
        view.put(key, b"%d" % value)
        return value

    return decide


def look(key: bytes) -> Callable[[View], bytes | None]:
    return lambda view: view.get(key).value
