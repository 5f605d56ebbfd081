"""Watching secrets over a real etcd: order, filters, proof before telling, compaction, limits."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from services.kv.watching import open_streams, watch_secrets
from services.kv.watching.changes import Change, changes_of, revision_of
from strongbox.access.authenticated_records import RecordKeys, seal_record
from strongbox.access.token_format import digest
from strongbox.errors import InvalidInput, RateLimited, Unauthenticated
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.paths import DirectoryPath
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.watch import Event, Kind
from tests.services.kv.test_over_etcd import Replica
from tests.support.access import FakeCluster
from tests.support.etcd import EtcdCluster, etcd_member

__all__ = ["etcd_member"]
WAIT = 10.0  # seconds


@pytest.fixture
async def kv(etcd_member: EtcdCluster) -> AsyncIterator[Replica]:
    cluster = FakeCluster()
    replica = Replica(etcd_member.endpoints, cluster)
    puts = [txn.put(key, fact.value or b"") for key, fact in cluster.store.facts.items()]
    await replica.etcd.transact(txn.txn([], puts), idempotent=True)
    await replica.pipeline.start()
    yield replica
    await replica.pipeline.close()
    await replica.etcd.close()


@pytest.fixture
def folder() -> str:
    return f"watch-{secrets.token_hex(6)}"


def opened(kv: Replica, folder: str, first: int = 0, token: str = "") -> AsyncGenerator[Change, None]:
    inbound = Inbound(token or kv.cluster.root, secrets.token_hex(8), "", "", time.monotonic() + 5)
    return kv.watching.changes(inbound, DirectoryPath(folder), first)


async def take(changes: AsyncGenerator[Change, None], count: int) -> list[tuple[str, int, str]]:
    async with asyncio.timeout(WAIT):
        found = [await anext(changes) for _ in range(count)]
    return [(one.path.partition("/")[2], one.version, one.kind) for one in found]


async def test_every_operation_is_told_in_order_and_nothing_else(kv: Replica, folder: str) -> None:
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    async with aclosing(opened(kv, folder, first)) as changes:
        await kv.write(f"{folder}/a", "2")
        await kv.call(
            "DeleteSecretVersions", pb.DeleteSecretVersionsRequest(path=f"{folder}/a", versions=[1, 2])
        )
        await kv.call(
            "UpdateSecretMetadata", pb.UpdateSecretMetadataRequest(path=f"{folder}/a", max_versions=3)
        )
        await kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path=f"{folder}/a"))
        assert await take(changes, 6) == [
            ("a", 1, "WRITTEN"), ("a", 2, "WRITTEN"), ("a", 1, "DELETED"), ("a", 2, "DELETED"),
            ("a", 2, "METADATA"), ("a", 0, "REMOVED"),
        ]  # fmt: skip


async def test_two_hundred_concurrent_writes_are_each_told_once(kv: Replica, folder: str) -> None:
    async with aclosing(opened(kv, folder)) as changes:
        waiting = asyncio.ensure_future(take(changes, 200))
        await asyncio.sleep(0.3)  # it tells of what comes after it was opened
        await asyncio.gather(*(kv.write(f"{folder}/{n}", "x") for n in range(200)))
        told = await waiting
    assert sorted(told) == sorted((str(n), 1, "WRITTEN") for n in range(200))


async def test_a_token_that_is_gone_is_told_no_further_event(kv: Replica, folder: str) -> None:
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    async with aclosing(opened(kv, folder, first)) as changes:
        await take(changes, 1)
        row = next(key for key in kv.cluster.store.facts if key.startswith(keyspace.TOKENS))
        await kv.etcd.transact(txn.txn([], [txn.put(keyspace.head(f"{folder}/b"), b""), txn.delete(row)]))
        async with asyncio.timeout(WAIT):
            with pytest.raises(Unauthenticated):
                await anext(changes)


async def test_an_idle_watch_of_a_dead_token_ends_too(
    kv: Replica, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_secrets, "PROVE_EVERY", 0.1)
    async with aclosing(opened(kv, folder)) as changes:
        waiting = asyncio.ensure_future(take(changes, 1))
        await asyncio.sleep(0.3)
        row = next(key for key in kv.cluster.store.facts if key.startswith(keyspace.TOKENS))
        await kv.etcd.transact(txn.txn([], [txn.delete(row)]))
        with pytest.raises(Unauthenticated):
            await waiting


async def test_what_is_compacted_is_said_and_the_watch_goes_on(kv: Replica, folder: str) -> None:
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    last = int((await kv.write(f"{folder}/a", "2")).revision)
    await kv.etcd.compact(last)
    async with aclosing(opened(kv, folder, first)) as changes:
        async with asyncio.timeout(WAIT):
            resync = await anext(changes)
        assert (resync.path, resync.version, resync.kind) == ("", 0, "RESYNC")
        assert resync.revision >= last
        await kv.write(f"{folder}/a", "3")
        assert await take(changes, 1) == [("a", 3, "WRITTEN")]


async def test_a_token_holds_only_so_many_watches(
    kv: Replica, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_streams, "MOST_OF_ONE", 1)
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    async with aclosing(opened(kv, folder, first)) as one:
        await take(one, 1)
        with pytest.raises(RateLimited):
            await anext(opened(kv, folder, first))
    async with aclosing(opened(kv, folder, first)) as again:
        await take(again, 1)


async def test_the_tokens_of_one_group_share_its_watches_and_take_nobody_elses(
    kv: Replica, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group of a tree, or of one AppRole's logins; two tokens that root made are two tenants."""
    monkeypatch.setattr(open_streams, "MOST_OF_ONE", 1)
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    line = [digest(kv.cluster.root)]
    tenant, other = [await token_of(kv, ancestors=line, accessor=name * 24) for name in "AB"]
    logins = [await token_of(kv, quota="approles/ci") for _ in range(2)]
    child = await token_of(kv, ancestors=[digest(tenant), *line], quota=f"token/{'A' * 24}")
    async with aclosing(opened(kv, folder, first, tenant)) as one:
        await take(one, 1)
        with pytest.raises(RateLimited):
            await anext(opened(kv, folder, first, child))
        async with aclosing(opened(kv, folder, first, other)) as two:
            await take(two, 1)
    async with aclosing(opened(kv, folder, first, logins[0])) as one:
        await take(one, 1)
        with pytest.raises(RateLimited):
            await anext(opened(kv, folder, first, logins[1]))


async def test_machines_of_one_role_do_not_use_up_each_others_watches(
    kv: Replica, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has one secret id has its watches, however often he logs in; a role has half of all."""
    monkeypatch.setattr(open_streams, "MOST_OF_ONE", 1)
    monkeypatch.setattr(open_streams, "MOST_OF_A_ROLE", 2)
    first = int((await kv.write(f"{folder}/a", "1")).revision)

    async def login(secret_id: str, role: str = "web") -> str:
        return await token_of(kv, quota=f"approles/{role}", holder=f"secret-id/{secret_id}")

    stolen, again = await login("stolen"), await login("stolen")
    async with aclosing(opened(kv, folder, first, stolen)) as one:
        await take(one, 1)
        with pytest.raises(RateLimited, match="at most 1 watches"):
            await anext(opened(kv, folder, first, again))
        async with aclosing(opened(kv, folder, first, await login("honest"))) as two:
            await take(two, 1)
            with pytest.raises(RateLimited, match="at most 2 watches"):
                await anext(opened(kv, folder, first, await login("third")))
            async with aclosing(opened(kv, folder, first, await login("other", "ci"))) as three:
                await take(three, 1)
    async with aclosing(opened(kv, folder, first, again)) as one:
        await take(one, 1)


async def test_a_stream_ends_with_the_last_use_of_its_token(kv: Replica, folder: str) -> None:
    first = int((await kv.write(f"{folder}/a", "1")).revision)
    spent = await token_of(kv, num_uses=1, uses_spent=1)
    inbound = Inbound(spent, secrets.token_hex(8), "", "", time.monotonic() + 5, use=1)
    async with aclosing(kv.watching.changes(inbound, DirectoryPath(folder), first)) as changes:
        async with asyncio.timeout(WAIT):
            with pytest.raises(Unauthenticated):
                await anext(changes)


async def token_of(kv: Replica, **fields: object) -> str:
    """A token with the root policy, in etcd."""
    token = kv.cluster.add_token(policies=["root"], **fields)
    puts = [txn.put(key, fact.value or b"") for key, fact in kv.cluster.store.facts.items()]
    await kv.etcd.transact(txn.txn([], puts), idempotent=True)
    return token


def test_a_head_that_was_put_by_no_operation_tells_nothing() -> None:
    head = storage.SecretHead(current_version=2)
    assert changes_of(event_of(head)) == []
    head.operations.add(op="WriteSecret", versions=[2], revision=7)
    assert changes_of(event_of(head)) == []
    head.operations.add(op="WriteSecret", versions=[2])
    assert changes_of(event_of(head)) == [Change("a/b", 2, "WRITTEN", 9)]


def test_junk_where_a_head_should_be_tells_nothing_and_ends_no_stream() -> None:
    for key in (keyspace.head("a/b"), keyspace.KV_HEADS + b"\xff"):
        assert changes_of(Event(Kind.PUT, key, b"\xff\xff\xff\xff", 9)) == []


def event_of(head: storage.SecretHead) -> Event:
    key = keyspace.head("a/b")
    value = seal_record(RecordKeys({1: b"k" * 32}, 1), key, head.SerializeToString())
    return Event(Kind.PUT, key, value, 9)


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "9" * 30, "\u0661", str(1 << 63)])
def test_a_revision_is_one_that_was_told(text: str) -> None:
    with pytest.raises(InvalidInput):
        revision_of(text)


def test_no_revision_is_from_now_on() -> None:
    assert (revision_of(""), revision_of("12")) == (0, 12)
