"""Database credentials count where their tokens count, until their roles are gone."""

from __future__ import annotations

import pytest

from strongbox.errors import QuotaExceeded
from strongbox.leases import counters
from strongbox.store import keyspace, txn
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
