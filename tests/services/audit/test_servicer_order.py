"""Nothing is read, opened or wrapped for a caller before the guard has let him in."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.audit.following.replica import Replica
from services.audit.keys import AuditKeys, OpenKeys
from services.audit.log.segments import Segments
from services.audit.proofs.checkpoint_publisher import Publisher
from services.audit.servicer import AuditServicer
from strongbox.access.authenticated_records import RecordKeys
from strongbox.access.guard import Guard
from strongbox.audit.v1 import audit_service_pb2 as pb
from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import SystemClock
from strongbox.errors import Unauthenticated
from strongbox.rpc.request_context import Inbound, bind
from strongbox.storage.v1.envelope_pb2 import Envelope
from strongbox.store import keyspace
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.support.access import FakeKeys

RPCS = {
    "ListEntries": pb.ListEntriesRequest(),
    "GetCheckpoint": pb.GetCheckpointRequest(),
    "GetProof": pb.GetProofRequest(index=0),
    "GetPublicKey": pb.GetPublicKeyRequest(),
    "RotateAuditKey": pb.RotateAuditKeyRequest(),
    "ExportKey": pb.ExportKeyRequest(),
    "ArchiveEntries": pb.ArchiveEntriesRequest(),
}


class Work:
    """A servicer over a real etcd, and what was asked of seal for its callers."""

    def __init__(self, etcd: Etcd, folder: Path) -> None:
        self.asked: list[str] = []
        keys = AuditKeys(self._load)
        replica = Replica(etcd, Segments(folder), "node-1")
        self.pipeline = Pipeline(etcd, Memory(), Outbox("audit"), SystemClock())
        guard = Guard(FakeKeys(RecordKeys({1: b"k" * 32}, 1)))
        publisher = Publisher(etcd, replica, keys)
        self.servicer = AuditServicer(self.pipeline, guard, replica, keys, publisher, self._new_key)

    async def _load(self) -> OpenKeys:
        self.asked.append("unwrap")
        raise AssertionError("keys are opened for nobody")

    async def _new_key(self, term: int) -> Envelope:
        self.asked.append(f"wrap {term}")
        raise AssertionError("a key is wrapped for nobody")


@pytest.fixture
async def work(etcd: Etcd, tmp_path: Path) -> AsyncIterator[Work]:
    await etcd.transact(txn.txn([], [txn.put(keyspace.SEAL_STATE, b"unsealed:1:1")]))
    made = Work(etcd, tmp_path)
    await made.pipeline.start()
    yield made
    await made.pipeline.close()


@pytest.mark.parametrize("token", ["", "not a token", "sb_" + "A" * 43])
async def test_nothing_is_asked_of_seal_for_a_caller_without_a_valid_token(work: Work, token: str) -> None:
    for name, request in RPCS.items():
        bind(Inbound(token, "request", "127.0.0.1", "", time.monotonic() + 5))
        call: Any = getattr(work.servicer, name)
        with pytest.raises(Unauthenticated):
            await call(request, None)
    assert work.asked == []


def test_every_call_is_in_the_table() -> None:
    told = {method.name for method in pb.DESCRIPTOR.services_by_name["AuditService"].methods}
    assert told - set(RPCS) == {"FollowEntries"}  # a stream, let in by the same step as a listing
