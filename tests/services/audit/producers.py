"""Outbox records put by hand, as the pipeline puts them; and replicas to follow them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.audit.following.replica import CopyHistory, Replica
from services.audit.keys import AuditKeys, OpenKeys
from services.audit.log.find_beginning import NO_COPIES, Copies
from services.audit.log.segments import Segments
from strongbox.audit_log.checkpoint import origin_of
from strongbox.crypto.ed25519 import SigningKey
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.logs import KEYS

SIGNING = SigningKey(bytes(range(32, 64)))
ORIGIN = origin_of("test")
PATIENCE = 20.0  # seconds


def audit_keys(chain: dict[int, bytes] = KEYS, created: dict[int, int] | None = None) -> AuditKeys:
    """Keys that are there at once."""

    async def load() -> OpenKeys:
        return OpenKeys(chain, created or dict.fromkeys(chain, 0), SIGNING, ORIGIN)

    return AuditKeys(load)


class Producer:
    """A process that records operations."""

    def __init__(self, etcd: Etcd, service: str, incarnation: str) -> None:
        self._etcd, self._service, self._incarnation = etcd, service, incarnation
        self.batch = 0

    async def put(self, *parts: int) -> int:
        """One batch with so many operations in each of its parts; returns its revision."""
        self.batch += 1
        cursor = keyspace.cursor(self._service, self._incarnation)
        operations = [txn.put(cursor, b"%d:nonce" % self.batch)]
        for part, items in enumerate(parts):
            key = keyspace.outbox_record(self._service, self._incarnation, self.batch, part)
            operations.append(txn.nested([], [txn.put(key, self._record(part, items))]))
        return int((await self._etcd.transact(txn.txn([], operations))).header.revision)

    def _record(self, part: int, items: int) -> bytes:
        return storage.OutboxRecord(
            entries=[
                storage.OutboxEntry(
                    ts_ms=1_700_000_000_000 + self.batch,
                    request_id=f"{self._service}-{self.batch}-{part}-{item}",
                    accessor="alice",
                    op="ReadSecret",
                    path=f"secret/app/{part}/{item}",
                    outcome="ok",
                    client="127.0.0.1",
                )
                for item in range(items)
            ]
        ).SerializeToString()


@asynccontextmanager
async def following(
    etcd: Etcd,
    folder: Path,
    node: str,
    copy: CopyHistory | None = None,
    keys: AuditKeys | None = None,
    copies: Copies = NO_COPIES,
) -> AsyncIterator[Replica]:
    """A running replica on `folder`."""
    log = Segments(folder)
    replica = Replica(etcd, log, node, copy, copies=copies)
    task = asyncio.create_task(replica.run(keys or audit_keys()))
    try:
        yield replica
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        log.close()


async def caught_up(revision: int, *replicas: Replica) -> None:
    """Until every replica has everything up to `revision`."""
    deadline = time.monotonic() + PATIENCE
    for replica in replicas:
        await replica.reached(revision, deadline)


async def until(condition: object, what: str) -> None:
    """Until `condition()`, awaited if need be, is true; raises TimeoutError naming `what`."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(0.05)


def text_of(folder: Path) -> bytes:
    """The whole log in a folder."""
    with contextlib.suppress(FileNotFoundError):
        return b"".join(file.read_bytes() for file in sorted(folder.glob("*.jsonl")))
    return b""


def two(etcd: Etcd) -> tuple[Producer, Producer]:
    """One of kv and one of auth."""
    return Producer(etcd, "kv", "a" * 16), Producer(etcd, "auth", "b" * 16)


async def put_some(kv: Producer, auth: Producer, rounds: int) -> int:
    """Records of both, in turn; returns the newest revision."""
    revision = 0
    for _ in range(rounds):
        await kv.put(2, 1)
        await auth.put()
        revision = await auth.put(1)
    return revision
