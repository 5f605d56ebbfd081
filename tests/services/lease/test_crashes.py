"""A replica is killed at every step of issuing, renewing, revoking, expiring, changing the root password."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.lease import credential_lease, repository
from strongbox.access.authenticated_records import seal_record
from strongbox.errors import StrongBoxError
from strongbox.storage.v1 import envelope_pb2
from strongbox.storage.v1 import lease_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from tests.services.lease.workshop import (
    KEYS,
    Workshop,
    ours,
    require_invariant,
)
from tests.support.postgres import PASSWORD, PostgresServer

ROOT = Path(__file__).resolve().parents[3]
MAKER = "crash-maker-password"
HOUR_S = 3700.0


class Crasher:
    """The process that forks and whose children die."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.lease.crashing"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, **asked: Any) -> bool:
        """Do a piece of work; whether it was killed on the way."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["died"] or answer["status"] == 0, f"the work itself failed: {answer}"
        return bool(answer["died"])

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture
def crasher() -> Iterator[Crasher]:
    made = Crasher()
    yield made
    made.close()


async def recover(shop: Workshop, ahead_s: float) -> None:
    """As the next holder of the reaper's duty does, until nothing waits for another attempt."""
    shop.clock.ahead_s = ahead_s
    for _ in range(20):
        await shop.reaper.one_pass(shop.fence)
        known = (await shop.grants()).values()
        if all(one.state == credential_lease.ACTIVE or not credential_lease.is_live(one) for one in known):
            break
        await asyncio.sleep(0.4)
    shop.clock.ahead_s = 0.0


@pytest.mark.parametrize(
    "work", ["issue", "renew", "revoke", pytest.param("expire", marks=pytest.mark.heavy)]
)
async def test_whatever_step_it_dies_at_nothing_is_left_over(
    shop: Workshop, crasher: Crasher, postgres: PostgresServer, work: str
) -> None:
    step, died = 0, True
    while died:
        before = set(await shop.grants())
        asked = {"work": work, "step": step, "endpoints": shop.endpoints, "root": shop.root, "name": "c"}
        died = await asyncio.to_thread(crasher, **asked)
        known = await shop.grants()
        require_invariant(known, postgres.roles())
        await shop.require_counted()
        # Within its time (an intent has 15 s, a revocation a pause) it is what it was to be, or nothing.
        await recover(shop, HOUR_S if work == "expire" else 20.0)
        known, roles = await shop.grants(), postgres.roles()
        require_invariant(known, roles)
        await shop.require_counted()
        living = set(ours(roles).values())
        for name in set(known) - before:
            state = known[name].state
            assert state in (credential_lease.ACTIVE, credential_lease.REVOKED, credential_lease.ABANDONED), (
                f"step {step}: {state}"
            )
            assert (name in living) == (state == credential_lease.ACTIVE), f"step {step}: {state}"
        if work in ("revoke", "expire") and step > 1:
            assert not living, f"step {step}: it was to end"
        await recover(shop, HOUR_S)  # and when its time is over there is no role of ours at all
        assert not ours(postgres.roles())
        step += 1
    assert step > 8, "hardly anything was done"


async def test_whatever_step_a_change_of_the_root_password_dies_at_we_can_still_log_in(
    shop: Workshop, crasher: Crasher, postgres: PostgresServer
) -> None:
    postgres.ask("DROP ROLE IF EXISTS crash_maker")
    postgres.ask("CREATE ROLE crash_maker LOGIN CREATEROLE PASSWORD %s", MAKER)
    postgres.ask("GRANT crash_template TO crash_maker WITH ADMIN OPTION")
    login = {"dsn": postgres.dsn, "username": "crash_maker", "password": MAKER}
    await shop.call("WritePostgresConnection", name="m", **login)
    await shop.call("WritePostgresRole", name="m", connection="m", template_role="crash_template")
    step, died = 0, True
    while died:
        asked = {"work": "rotate", "step": step, "endpoints": shop.endpoints, "root": shop.root, "name": "m"}
        died = await asyncio.to_thread(crasher, **asked)
        shop.databases.close()  # no session from before helps
        lease = (await shop.call("IssueCredential", role="m")).lease.id
        assert (await shop.call("RevokeLease", id=lease)).state == "REVOKED"
        shop.clock.ahead_s = 40.0  # whoever asks again finishes it
        await shop.call("RotatePostgresRoot", name="m")
        shop.clock.ahead_s = 0.0
        shop.databases.close()
        lease = (await shop.call("IssueCredential", role="m")).lease.id
        assert (await shop.call("RevokeLease", id=lease)).state == "REVOKED"
        step += 1
    assert step > 8, "hardly anything was done"
    assert not postgres.logs_in("crash_maker", MAKER)


async def test_an_issuer_that_wakes_late_leaves_no_role(shop: Workshop, postgres: PostgresServer) -> None:
    """It was given up for dead; then it makes its role, and gets no answer for it."""
    make = shop.servicer._issuer._make

    async def late(*args: Any) -> None:
        await recover(shop, 20.0)  # 20 s pass in which it does nothing
        await make(*args)

    shop.servicer._issuer._make = late  # type: ignore[method-assign]
    with pytest.raises(StrongBoxError):
        await shop.call("IssueCredential", role="c")
    assert len(ours(postgres.roles())) == 1  # made after it was looked for
    await shop.require_counted()  # and it counts again
    assert len(await shop.recorded("EndCredential")) == 1
    await recover(shop, 0.0)  # not only when it is looked for again
    assert not ours(postgres.roles())
    assert len(await shop.recorded("EndCredential")) == 2
    await recover(shop, 100.0)
    await recover(shop, 2 * HOUR_S)
    assert await shop.grants() == {}
    await shop.require_counted()


async def test_orphans_are_dropped_strangers_are_left_and_leases_without_a_role_are_closed(
    shop: Workshop, postgres: PostgresServer
) -> None:
    kept = await shop.call("IssueCredential", role="c")
    vanished = await shop.call("IssueCredential", role="c")
    orphan = credential_lease.username_of("p" + "7" * 40)
    postgres.ask(f"CREATE ROLE {orphan}; COMMENT ON ROLE {orphan} IS 'strongbox:workshop:p{'7' * 40}'")
    postgres.ask("CREATE ROLE sb_0123456789abcdef; CREATE ROLE sb_fedcba9876543210")
    postgres.ask(f"COMMENT ON ROLE sb_fedcba9876543210 IS 'strongbox:another:p{'8' * 40}'")
    postgres.ask(f"DROP ROLE {vanished.username}")
    await shop.reconciler.one_pass(shop.fence)
    roles = postgres.roles()
    assert orphan not in roles
    assert {kept.username, "sb_0123456789abcdef", "sb_fedcba9876543210"} <= roles.keys()
    assert (await shop.call("GetLease", id=kept.lease.id)).state == "ACTIVE"
    assert (await shop.call("GetLease", id=vanished.lease.id)).state == "REVOKED"
    await shop.require_counted()
    postgres.ask("DROP ROLE sb_0123456789abcdef; DROP ROLE sb_fedcba9876543210")
    await shop.call("RevokeLease", id=kept.lease.id)


async def test_a_lease_that_ends_while_its_role_is_looked_for_is_not_recorded_as_one_that_vanished(
    shop: Workshop, postgres: PostgresServer
) -> None:
    async def is_recorded() -> bool:
        rows = (await shop.etcd.range(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX))).rows
        return any(b"CloseLeaseOfVanishedRole" in row.value for row in rows)

    one, other = [await shop.call("IssueCredential", role="c") for _ in range(2)]
    active = await shop.grants()
    await shop.call("RevokeLease", id=one.lease.id)
    await shop.reconciler._close(shop.fence, active[one.lease.id])
    assert not await is_recorded()
    postgres.ask(f"DROP ROLE {other.username}")
    await shop.reconciler._close(shop.fence, active[other.lease.id])
    assert await is_recorded()
    assert (await shop.call("GetLease", id=other.lease.id)).state == "REVOKED"


async def test_a_connection_that_cannot_be_used_keeps_no_other_from_being_compared(
    shop: Workshop, postgres: PostgresServer
) -> None:
    login = {"dsn": postgres.dsn, "username": "postgres", "password": PASSWORD}
    await shop.call("WritePostgresConnection", name="b", **login)  # it is looked at before `c`
    record = storage.ConnectionRecord(
        name="b", dsn=postgres.dsn, username="postgres", envelope=envelope_pb2.Envelope(term=1), version=1
    )
    key = repository.connection_key("b")
    spoilt = seal_record(KEYS, key, record.SerializeToString(deterministic=True))
    junk = keyspace.POSTGRES_CONNECTIONS + b"a\xff"
    await shop.etcd.transact(txn.txn([], [txn.put(key, spoilt), txn.put(junk, b"junk")]), idempotent=True)
    orphan = credential_lease.username_of("p" + "6" * 40)
    postgres.ask(f"CREATE ROLE {orphan}; COMMENT ON ROLE {orphan} IS 'strongbox:workshop:p{'6' * 40}'")
    await shop.reconciler.one_pass(shop.fence)
    assert orphan not in postgres.roles()
