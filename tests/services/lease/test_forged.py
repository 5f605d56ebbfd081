"""Records of the lease service that were copied, edited or made up in etcd grant nothing and end nothing."""

from __future__ import annotations

import pytest

from services.lease import credential_lease, repository
from strongbox.access.authenticated_records import seal_record
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import InvalidInput, NotFound
from strongbox.lease_records import index
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from tests.services.lease.workshop import Workshop, ours
from tests.support.postgres import PASSWORD, PostgresServer

OTHER_KEYS = RecordKeys({1: b"x" * 32}, 1)
WAYS = ["copied", "edited", "made up"]


async def put(shop: Workshop, key: bytes, value: bytes) -> None:
    """As somebody who can write to etcd and has none of our keys."""
    await shop.etcd.transact(txn.txn([], [txn.put(key, value)]), idempotent=True)


async def value_of(shop: Workshop, key: bytes) -> bytes:
    row = await shop.etcd.get(key)
    assert row is not None
    return row.value


async def spoil(shop: Workshop, way: str, key: bytes, source: bytes, wanted: bytes) -> None:
    """Have `key` hold what is at `source`, or one other bit, or `wanted` under a key that is not ours."""
    value = await value_of(shop, source if way == "copied" else key)
    if way == "edited":
        at = len(value) // 2
        value = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
    await put(shop, key, seal_record(OTHER_KEYS, key, wanted) if way == "made up" else value)


@pytest.mark.parametrize("way", WAYS)
async def test_a_forged_database_role_issues_nothing(
    shop: Workshop, postgres: PostgresServer, way: str
) -> None:
    await shop.call("WritePostgresRole", name="more", connection="c", template_role="pg_write_all_data")
    await shop.call("IssueCredential", role="c")
    before = ours(postgres.roles())
    more = storage.DatabaseRoleRecord(name="c", connection="c", template_role="pg_write_all_data")
    await spoil(shop, way, repository.role_key("c"), repository.role_key("more"), more.SerializeToString())
    with pytest.raises(NotFound):
        await shop.call("IssueCredential", role="c")
    with pytest.raises(NotFound):
        await shop.call("ReadPostgresRole", name="c")
    assert ours(postgres.roles()) == before


@pytest.mark.parametrize("way", WAYS)
async def test_a_forged_connection_is_asked_for_nothing_and_its_leases_wait_and_say_so(
    shop: Workshop, postgres: PostgresServer, way: str
) -> None:
    lease = (await shop.call("IssueCredential", role="c")).lease.id
    login = {"dsn": postgres.dsn, "username": "postgres", "password": PASSWORD}
    await shop.call("WritePostgresConnection", name="other", **login)
    key = repository.connection_key("c")
    sound = await value_of(shop, key)
    theirs = storage.ConnectionRecord(name="c", dsn="postgresql://127.0.0.1:1/postgres", username="postgres")
    await spoil(shop, way, key, repository.connection_key("other"), theirs.SerializeToString())
    with pytest.raises(NotFound):
        await shop.call("IssueCredential", role="c")
    with pytest.raises(NotFound):
        await shop.call("RenewLease", id=lease)
    assert (await shop.call("RevokeLease", id=lease)).state == "REVOCATION_PENDING"
    assert "does not exist" in (await shop.call("GetLease", id=lease)).last_error
    await put(shop, key, sound)
    assert (await shop.call("RevokeLease", id=lease)).state == "REVOKED"
    assert not ours(postgres.roles())


@pytest.mark.parametrize("way", WAYS)
async def test_a_forged_lease_is_none_and_its_role_goes(
    shop: Workshop, postgres: PostgresServer, way: str
) -> None:
    lease = await shop.call("IssueCredential", role="c")
    other = (await shop.call("IssueCredential", role="c")).lease.id
    known = (await shop.grants())[lease.lease.id]
    longer = credential_lease.Record()
    longer.CopyFrom(known)
    longer.expires_ms = longer.max_expires_ms = known.expires_ms + 10**10
    await spoil(shop, way, keyspace.grant(known.id), keyspace.grant(other), longer.SerializeToString())
    for call in ("GetLease", "RenewLease", "RevokeLease"):
        with pytest.raises(NotFound):
            await shop.call(call, id=known.id)
    await shop.reconciler.one_pass(shop.fence)
    assert set(ours(postgres.roles()).values()) == {other}
    assert (await shop.call("GetLease", id=other)).state == "ACTIVE"


async def test_a_lease_copied_under_another_id_makes_no_second_one(
    shop: Workshop, postgres: PostgresServer
) -> None:
    lease = (await shop.call("IssueCredential", role="c")).lease.id
    twin = "p" + "9" * 40
    await put(shop, keyspace.grant(twin), await value_of(shop, keyspace.grant(lease)))
    await put(shop, index.due_key(0, twin), b"")
    with pytest.raises(NotFound):
        await shop.call("GetLease", id=twin)
    await shop.reaper.one_pass(shop.fence)
    assert await shop.etcd.get(index.due_key(0, twin)) is None
    assert set(ours(postgres.roles()).values()) == {lease}


async def test_entries_of_the_index_end_nothing_before_its_time(
    shop: Workshop, postgres: PostgresServer
) -> None:
    lease = (await shop.call("IssueCredential", role="c")).lease.id
    await put(shop, index.due_key(0, lease), b"")
    await shop.reaper.one_pass(shop.fence)
    assert set(ours(postgres.roles()).values()) == {lease}
    assert (await shop.call("GetLease", id=lease)).state == "ACTIVE"


async def test_a_connection_of_a_made_up_record_is_replaced_by_writing_it(
    shop: Workshop, postgres: PostgresServer
) -> None:
    await put(shop, repository.connection_key("c"), b"nonsense")
    login = {"dsn": postgres.dsn, "username": "postgres", "password": PASSWORD}
    await shop.call("WritePostgresConnection", name="c", **login)
    lease = (await shop.call("IssueCredential", role="c")).lease.id
    assert (await shop.call("RevokeLease", id=lease)).state == "REVOKED"
    with pytest.raises(InvalidInput):
        await shop.call("RenewLease", id=lease)
