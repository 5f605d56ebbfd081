"""What kv still does when etcd is so full that nothing may grow: read, delete, destroy, remove; not write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from strongbox.errors import Overloaded
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.lease_records import read_lease
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.space.admission import Room
from tests.services.kv.test_over_etcd import Replica
from tests.support.access import FakeCluster
from tests.support.etcd import EtcdCluster

QUOTA = 64 << 20
LARGE = "x" * (100 << 10)


@pytest.fixture
async def kv() -> AsyncIterator[Replica]:
    cluster = FakeCluster()
    with EtcdCluster(1) as etcd:
        replica = Replica(etcd.endpoints, cluster, QUOTA)
        puts = [txn.put(key, fact.value or b"") for key, fact in cluster.store.facts.items()]
        await replica.etcd.transact(txn.txn([], puts), idempotent=True)
        await replica.pipeline.start()
        yield replica
        await replica.pipeline.close()
        await replica.etcd.close()


async def fill(kv: Replica) -> None:
    """As the keeper: growing has come to its end."""
    revision = (await kv.etcd.range(b"/none")).revision
    told = Room(revision, int(0.72 * QUOTA), int(0.72 * QUOTA), QUOTA, "test").pack()
    await kv.etcd.transact(txn.txn([], [txn.put(keyspace.ROOM, told)]), idempotent=True)
    await kv.read("known")  # its answer brings the news


async def change(kv: Replica, what: str, *numbers: int) -> None:
    request = getattr(pb, f"{what}SecretVersionsRequest")(path="known", versions=numbers)
    await kv.call(f"{what}SecretVersions", request)


async def configure(kv: Replica, path: str = "known", **fields: Any) -> None:
    await kv.call("UpdateSecretMetadata", pb.UpdateSecretMetadataRequest(path=path, **fields))


async def batch(kv: Replica, paths: list[str]) -> pb.BatchReadSecretsResponse:
    request = pb.BatchReadSecretsRequest(requests=[pb.SecretReference(path=path) for path in paths])
    answer: pb.BatchReadSecretsResponse = await kv.call("BatchReadSecrets", request)
    return answer


async def test_a_write_grows_even_where_a_longer_version_goes(kv: Replica) -> None:
    await kv.write("known", LARGE)
    await configure(kv, max_versions=1)
    await fill(kv)
    for path in ("known", "new"):
        with pytest.raises(Overloaded):
            await kv.write(path, "small")


async def test_what_takes_away_goes_on_and_metadata_does_not_grow(kv: Replica) -> None:
    for _ in range(5):
        await kv.write("known", LARGE)
    custom = {f"key-{number}": "m" * 500 for number in range(60)}
    await configure(kv, custom=custom)
    await kv.write("small", "v")
    await configure(kv, "small", custom={"a": "m" * 500})
    await fill(kv)
    with pytest.raises(Overloaded):
        await configure(kv, "small", custom={"a": "n" * 500})  # again and again it would fill the reserve
    await configure(kv, "small", clear_custom=True)
    with pytest.raises(Overloaded):
        await configure(kv, custom={f"more-{number}": "m" * 500 for number in range(64)}, max_versions=4)
    await configure(kv, max_versions=4)  # one envelope goes, one request to purge comes
    await change(kv, "Destroy", 2)
    with pytest.raises(Overloaded):
        await change(kv, "Destroy", 2)  # frees nothing, and leaves 30 KB of history each time
    await kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path="known"))


async def test_soft_deletes_and_undeletes_are_neutral(kv: Replica) -> None:
    for _ in range(20):
        await kv.write("known", "v")
    await fill(kv)
    await change(kv, "Delete", 19)
    await change(kv, "Undelete", 19)


async def test_a_batch_is_read_without_new_leases_and_without_moving_on_those_it_has(
    kv: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = [f"old/{n}" for n in range(120)], [f"new/{n}" for n in range(5)]
    for path in ["known", *old, *new]:
        await kv.write(path, path)
    before = await batch(kv, old)
    await fill(kv)
    monkeypatch.setattr(read_lease, "TTL_MS", 3 * read_lease.TTL_MS)  # all of them would be moved on
    answer = await batch(kv, old + new)
    assert [one.secret.value for one in answer.results] == old + new
    expiries = [one.secret.lease.expires_at for one in before.results]
    assert [one.secret.lease.expires_at for one in answer.results[: len(old)]] == expiries
    assert not any(one.secret.HasField("lease") for one in answer.results[len(old) :])
