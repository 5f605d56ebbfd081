"""Secrets over the real pipeline and etcd: two replicas, contention, the largest values, a listing."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from services.kv.purge_duty import Purge
from services.kv.repository import Repository
from services.kv.servicer import KVServicer
from services.kv.watching.watch_secrets import Watching
from strongbox.access.guard import Guard
from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import ManualClock, SystemClock
from strongbox.errors import Unauthenticated, VersionDestroyed, VersionMismatch
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.rpc.request_context import Inbound, bind
from strongbox.store import keyspace
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.decisions.view import View
from strongbox.store.etcd import errors, txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.space.admission import Space
from strongbox.store.space.defragment import Defragmenter
from tests.support.access import FakeCluster
from tests.support.etcd import EtcdCluster
from tests.support.keys import FakeKeyClient


class Replica:
    """One kv process, but for its gRPC server."""

    def __init__(self, endpoints: list[str], cluster: FakeCluster, quota: int = 0) -> None:
        self.etcd = Etcd(endpoints)
        self.pipeline = Pipeline(self.etcd, Memory(), Outbox("kv"), SystemClock(), Space(quota))
        self.cluster = cluster
        keys = FakeKeyClient(cluster.keys)
        guard = self.guard = Guard(keys)
        self.watching = Watching(self.pipeline, guard, self.etcd)
        self.servicer = KVServicer(self.pipeline, guard, keys, self.watching)

    async def call(self, name: str, request: Any, key: str = "") -> Any:
        inbound = Inbound(self.cluster.root, secrets.token_hex(8), "", key, time.monotonic() + 10)
        bind(inbound)
        return await getattr(self.servicer, name)(request, cast("Any", None))

    async def write(self, path: str, value: str, **options: Any) -> pb.WriteSecretResponse:
        key = options.pop("key", "")
        request = pb.WriteSecretRequest(path=path, value=value, **options)
        return cast("pb.WriteSecretResponse", await self.call("WriteSecret", request, key))

    async def read(self, path: str, version: int | None = None) -> str:
        answer = await self.call("ReadSecret", pb.ReadSecretRequest(path=path, version=version))
        return cast("str", answer.value)


class Fence:
    """A term that lasts."""

    def require(self, view: View, /) -> None:
        pass

    def progress(self) -> None:
        """Nobody looks."""


@pytest.fixture
async def two(etcd_member: EtcdCluster) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas of one cluster, which is made anew."""
    cluster = FakeCluster()
    pair = Replica(etcd_member.endpoints, cluster), Replica(etcd_member.endpoints, cluster)
    puts = [txn.put(key, fact.value or b"") for key, fact in cluster.store.facts.items()]
    await pair[0].etcd.transact(txn.txn([], puts), idempotent=True)
    for replica in pair:
        await replica.pipeline.start()
    yield pair
    for replica in pair:
        await replica.pipeline.close()
        await replica.etcd.close()


@pytest.fixture
def path() -> str:
    """A path of this test alone."""
    return f"test-{secrets.token_hex(6)}"


async def test_what_one_replica_writes_the_other_reads_though_it_remembers_otherwise(
    two: tuple[Replica, Replica], path: str
) -> None:
    one, other = two
    for number in range(10):
        made = await one.write(path, str(number))
        assert await other.read(path) == str(number)
        assert made.version == number + 1


async def test_of_writers_with_the_same_cas_one_wins(two: tuple[Replica, Replica], path: str) -> None:
    await two[0].write(path, "start")
    tries = [two[n % 2].write(path, str(n), cas=1) for n in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    won = [result for result in results if isinstance(result, pb.WriteSecretResponse)]
    assert len(won) == 1
    assert all(isinstance(r, VersionMismatch) for r in results if r is not won[0])


async def test_contending_writers_each_get_a_version_of_their_own(
    two: tuple[Replica, Replica], path: str
) -> None:
    made = await asyncio.gather(*(two[n % 2].write(path, str(n)) for n in range(40)))
    assert sorted(answer.version for answer in made) == list(range(1, 41))
    for answer, number in zip(made, range(40), strict=True):
        if answer.version > 30:
            assert await two[0].read(path, answer.version) == str(number)


async def test_a_repetition_at_another_replica_at_the_same_time_is_applied_once(
    two: tuple[Replica, Replica], path: str
) -> None:
    answers = await asyncio.gather(*(two[n % 2].write(path, "v", key="k") for n in range(10)))
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert answers[0].version == 1
    await two[0].write(path, "next")
    assert await two[1].write(path, "v", key="k") == answers[0]


async def test_the_largest_values_can_be_written_over_each_other(
    two: tuple[Replica, Replica], path: str
) -> None:
    large = "x" * (512 << 10)
    await asyncio.gather(*(two[0].write(path, large) for _ in range(3)))
    assert await two[1].read(path) == large
    assert await two[1].read(path, 1) == large


async def test_mixed_reads_and_writes_of_many_paths_come_out_right(
    two: tuple[Replica, Replica], path: str
) -> None:
    async def life(number: int) -> None:
        for turn in range(5):
            await two[turn % 2].write(f"{path}/{number}", f"{number}-{turn}")
            assert await two[(turn + 1) % 2].read(f"{path}/{number}") == f"{number}-{turn}"

    await asyncio.gather(*(life(number) for number in range(20)))
    answer = await two[0].call("ListSecrets", pb.ListSecretsRequest(prefix=path, page_size=7))
    assert list(answer.names) == sorted(map(str, range(20)))[:7]


async def test_a_token_that_is_gone_reads_nothing_from_the_next_request_on(
    two: tuple[Replica, Replica], path: str
) -> None:
    await two[0].write(path, "v")
    assert await two[1].read(path) == "v"
    row = next(key for key in two[0].cluster.store.facts if key.startswith(keyspace.TOKENS))
    await two[0].etcd.transact(txn.txn([], [txn.delete(row)]), idempotent=True)
    for replica in two:
        with pytest.raises(Unauthenticated):
            await replica.read(path)


async def test_after_purged_at_no_revision_holds_the_envelope_that_was_destroyed(
    two: tuple[Replica, Replica], path: str
) -> None:
    one = two[0]
    await one.write(path, "old")
    written = await one.write(path, "new")
    await one.call("DestroySecretVersions", pb.DestroySecretVersionsRequest(path=path, versions=[1, 2]))
    later = b"%020d" % (SystemClock().now_ms() + 20_000)
    await one.etcd.transact(txn.txn([], [txn.put(keyspace.CLUSTER_TIME, later)]), idempotent=True)
    members = [member.address for member in one.etcd.ring.members]
    purge = Purge(
        one.pipeline,
        Repository(one.guard.lookup),
        one.etcd,
        Defragmenter(one.etcd, members).run,
        ManualClock(),
    )
    assert await purge.one_pass(Fence()) >= 1
    told = await one.call("ReadSecretMetadata", pb.ReadSecretMetadataRequest(path=path))
    assert all(version.HasField("purged_at") for version in told.versions)
    with pytest.raises(errors.Compacted):
        await one.etcd.range(keyspace.head(path), revision=int(written.revision))
    for version in (1, 2):
        with pytest.raises(VersionDestroyed):
            await two[1].read(path, version)
