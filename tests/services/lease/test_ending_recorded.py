"""Every end of a credential is in the audit trail: by its own expiry too, which nobody has asked for."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from services.lease import credential_lease, repository
from services.lease.leases.revoke import Revoker
from services.lease.postgres.ending import drop_roles
from services.lease.postgres.errors import Unreachable
from strongbox.audit_outbox.outbox import Outbox
from strongbox.errors import Overloaded, StrongBoxError
from strongbox.lease_records.counters import Tally
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.store.decisions.pipeline import Work
from strongbox.store.decisions.view import View
from tests.services.lease.workshop import Workshop, ours
from tests.support.postgres import PostgresServer

PATH = "dynamic-postgres/c"


def told(entries: list[storage.OutboxEntry]) -> set[tuple[str, str, str, str]]:
    return {(one.request_id, one.path, one.outcome, one.reason) for one in entries}


async def test_each_credential_that_the_reaper_ends_is_recorded_with_its_end(
    shop: Workshop, postgres: PostgresServer
) -> None:
    names = [(await shop.call("IssueCredential", role="c")).lease.id for _ in range(3)]
    shop.clock.ahead_s = 3700.0
    await shop.reaper.one_pass(shop.fence)
    assert not ours(postgres.roles())
    entries = await shop.recorded("EndCredential")
    assert told(entries) == {(name, PATH, "ok", "") for name in names}
    (holder,) = {entry.accessor for entry in entries}
    assert holder == (await shop.grants())[names[0]].accessor
    assert min(entry.ts_ms for entry in entries) >= (await shop.grants())[names[0]].expires_ms
    await shop.reaper.one_pass(shop.fence)
    assert len(await shop.recorded("EndCredential")) == 3


async def test_a_failure_is_recorded_once_and_the_end_once_it_comes(
    shop: Workshop, postgres: PostgresServer
) -> None:
    lease = await shop.call("IssueCredential", role="c")
    postgres.ask(f"COMMENT ON ROLE {lease.username} IS 'somebody else changed this'")
    shop.clock.ahead_s = 3700.0
    for _ in range(3):
        await shop.reaper.one_pass(shop.fence)
        shop.clock.ahead_s += 60
    assert (await shop.grants())[lease.lease.id].attempts >= 3
    failure = (lease.lease.id, PATH, "refused", "DEPENDENCY_DOWN")
    assert [told([one]) for one in await shop.recorded("EndCredential")] == [{failure}]
    postgres.ask(f"COMMENT ON ROLE {lease.username} IS 'strongbox:workshop:{lease.lease.id}'")
    await shop.reaper.one_pass(shop.fence)
    entries = await shop.recorded("EndCredential")
    assert told(entries) == {failure, (lease.lease.id, PATH, "ok", "")}
    assert len(entries) == 2


async def test_a_full_outbox_keeps_no_credential_alive_and_its_end_is_recorded(
    shop: Workshop, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await shop.call("IssueCredential", role="c")
    shop.clock.ahead_s = 3700.0

    def full(self: Outbox) -> None:
        raise Overloaded("the audit outbox is full")

    monkeypatch.setattr(Outbox, "require_room", full)
    with pytest.raises(Overloaded):
        await shop.call("IssueCredential", role="c")
    await shop.reaper.one_pass(shop.fence)
    assert lease.username not in postgres.roles()
    assert (lease.lease.id, PATH, "ok", "") in told(await shop.recorded("EndCredential"))


async def test_an_intent_that_became_a_role_is_recorded_when_it_is_taken_away_and_not_again(
    shop: Workshop, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = (await shop.call("IssueCredential", role="c")).lease.id
    assert (await shop.call("RevokeLease", id=lease)).state == "REVOKED"
    assert told(await shop.recorded("EndCredential")) == {(lease, PATH, "ok", "")}

    async def dies(*_: object, **__: object) -> None:
        raise StrongBoxError

    shop.servicer._issuer._make = dies  # type: ignore[method-assign]
    with pytest.raises(StrongBoxError):
        await shop.call("IssueCredential", role="c")
    (intent,) = [one.id for one in (await shop.grants()).values() if one.state == credential_lease.INTENT]
    for ahead in (20.0, 100.0, 200.0):
        shop.clock.ahead_s = ahead
        await shop.reaper.one_pass(shop.fence)
    entries = [one for one in await shop.recorded("EndCredential") if one.request_id == intent]
    assert len(entries) == 1

    def away(*_: object) -> dict[str, str]:
        raise Unreachable("PostgreSQL is away")

    with monkeypatch.context() as patch:  # it is looked for again: nothing more is to be told of it
        patch.setattr(drop_roles, "remove", away)
        shop.clock.ahead_s = 300.0
        await shop.reaper.one_pass(shop.fence)
    assert [one for one in await shop.recorded("EndCredential") if one.request_id == intent] == entries


async def test_what_is_made_while_it_is_looked_for_is_not_told_to_be_gone(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object, **__: object) -> None:
        raise StrongBoxError

    monkeypatch.setattr(shop.servicer._issuer, "_make", dies)
    with pytest.raises(StrongBoxError):
        await shop.call("IssueCredential", role="c")
    (intent,) = [one for one in (await shop.grants()).values() if one.state == credential_lease.INTENT]
    look, late = Revoker._remove, list[str]()

    def given_up_too_early(view: View) -> None:
        keys, tally = shop.guard.lookup.require_keys(), Tally()
        record = repository.find_grant(view, keys, intent.id)
        assert record is not None
        repository.put_grant(view, keys, credential_lease.made_late(record), record, tally)
        tally.settle(view)

    async def made_meanwhile(self: Revoker, *arguments: Any) -> dict[str, str]:
        told = await look(self, *arguments)
        if not late:
            late.append(intent.id)
            await shop.pipeline.submit(Work(given_up_too_early, None, time.monotonic() + 5))
        return told

    shop.clock.ahead_s = 20.0
    monkeypatch.setattr(Revoker, "_remove", made_meanwhile)
    with contextlib.suppress(StrongBoxError):
        await shop.reaper.one_pass(shop.fence)
    assert late == [intent.id]
    assert credential_lease.due_ms((await shop.grants())[intent.id]) == credential_lease.AT_ONCE
    assert intent.id not in {one.request_id for one in await shop.recorded("EndCredential")}


async def test_a_defect_while_roles_are_taken_away_is_a_failed_attempt_and_ends_no_duty(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is dropped while it is looked at has no name: it was such a defect."""
    issued = await shop.call("IssueCredential", role="c")

    def defect(*_: object) -> dict[str, str]:
        raise TypeError("no name")

    with monkeypatch.context() as broken:
        broken.setattr(drop_roles, "remove", defect)
        await shop.call("RevokeLease", id=issued.lease.id)
        record = (await shop.grants())[issued.lease.id]
        assert (record.state, record.attempts, record.last_error) == (
            credential_lease.PENDING,
            1,
            "the attempt failed",
        )
    shop.clock.ahead_s = 20.0
    await shop.reaper.one_pass(shop.fence)
    assert (await shop.grants())[issued.lease.id].state == credential_lease.REVOKED
