"""Database credentials count where their tokens count, until their roles are gone."""

from __future__ import annotations

import time

import pytest

from services.lease import repository
from services.lease.credentials import issue
from strongbox.errors import QuotaExceeded
from strongbox.lease_records import counters
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from tests.services.lease.support import Lease
from tests.services.lease.workshop import Workshop


async def counted(shop: Workshop) -> dict[str, int]:
    """What stands below tokens and groups, by the counter."""
    prefix = keyspace.LEASE_COUNTS
    rows = (await shop.etcd.range(prefix, keyspace.prefix_end(prefix))).rows
    told = {row.key.removeprefix(prefix).decode(): int(row.value) for row in rows}
    return {name: number for name, number in told.items() if name.startswith(("token/", "all/"))}


async def test_a_credential_counts_for_its_holder_and_its_group_until_it_is_ended(shop: Workshop) -> None:
    issued = await shop.call("IssueCredential", role="c")
    (record,) = (await shop.grants()).values()
    keys = [key.removeprefix(keyspace.LEASE_COUNTS).decode() for key in counters.keys_of(record)]
    assert await counted(shop) == dict.fromkeys(keys, 1)
    assert len(keys) == 2
    await shop.call("RevokeLease", id=issued.lease.id)
    assert await counted(shop) == {}


async def test_a_full_group_gets_no_credential(shop: Workshop) -> None:
    await shop.call("IssueCredential", role="c")
    (record,) = (await shop.grants()).values()
    full = b"%d" % counters.PER_GROUP_PART
    parts = {counters.group_key(record.group, f"p{part:02x}") for part in range(counters.GROUP_PARTS)}
    await shop.etcd.transact(txn.txn([], [txn.put(key, full) for key in parts]))
    with pytest.raises(QuotaExceeded, match="tree, user or role"):
        await shop.call("IssueCredential", role="c")
    assert len(await shop.grants()) == 1


class Counting(Lease):
    """With a database role, and tokens of a tree and of a login."""

    def __init__(self) -> None:
        super().__init__()
        connection = storage.ConnectionRecord(name="c", dsn="postgresql://h/d", username="u")
        role = storage.DatabaseRoleRecord(
            name="c", connection="c", default_ttl_s=60, max_ttl_s=60, max_leases=9
        )
        self.store.run(lambda view: repository.put_connection(view, self.keys, connection))
        self.store.run(lambda view: repository.put_role(view, self.keys, role))

    def intend(self, token: str, fresh: issue.Fresh) -> None:
        inbound = Inbound(token, "request", "", "", time.monotonic() + 1)

        def decide(view: View) -> issue.Plan:
            caller = self.guard.authenticate(view, inbound)
            return issue.intend(view, self.guard.lookup, caller, "c", fresh)

        self.store.run(decide)

    def counts(self) -> set[str]:
        prefix = keyspace.LEASE_COUNTS
        names = (key.removeprefix(prefix).decode().rpartition("/")[0] for key in self.store.keys(prefix))
        return {name for name in names if not name.startswith(("connection", "role"))}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"accessor": "A" * 24, "quota": "token/top"}, {f"token/{'A' * 24}", "all/token/top"}),
        ({"quota": "approles/web", "holder": "secret-id/one"}, {"secret-id/one", "all/approles/web"}),
    ],
)
def test_an_intent_counts_where_its_token_counts_until_it_is_given_up(
    fields: dict[str, str], told: set[str]
) -> None:
    lease, fresh = Counting(), issue.Fresh.make()
    token = lease.add_token(policies=["root"], **fields)
    lease.intend(token, fresh)
    assert lease.counts() == told
    lease.store.run(lambda view: issue.give_up(view, lease.guard.lookup, fresh.id, surely_nothing=True))
    assert lease.counts() == set()


def test_where_holder_or_group_is_full_nothing_is_intended() -> None:
    lease, fresh = Counting(), issue.Fresh.make()
    token = lease.add_token(policies=["root"], quota="approles/web", holder="secret-id/one")
    for key, full in (
        (counters.holder_key("secret-id/one", fresh.id), counters.PER_PART),
        (counters.group_key("approles/web", fresh.id), counters.PER_GROUP_PART),
    ):
        lease.store.seed(key, b"%d" % full)
        with pytest.raises(QuotaExceeded):
            lease.intend(token, fresh)
        lease.store.seed(key, None)
    lease.intend(token, fresh)
