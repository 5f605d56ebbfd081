"""Every end of a credential is in the audit trail: by its own expiry too, which nobody has asked for."""

from __future__ import annotations

import pytest

from services.lease import grants
from strongbox.errors import Overloaded, StrongBoxError
from strongbox.storage.v1 import audit_records_pb2 as storage
from strongbox.trail.outbox import Outbox
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
    assert (await shop.grants())[lease.lease.id].attempts == 3
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
    shop: Workshop, postgres: PostgresServer
) -> None:
    lease = (await shop.call("IssueCredential", role="c")).lease.id
    assert (await shop.call("RevokeLease", id=lease)).state == "REVOKED"
    assert told(await shop.recorded("EndCredential")) == {(lease, PATH, "ok", "")}

    async def dies(*_: object, **__: object) -> None:
        raise StrongBoxError

    shop.servicer._issuer._make = dies  # type: ignore[method-assign]
    with pytest.raises(StrongBoxError):
        await shop.call("IssueCredential", role="c")
    (intent,) = [one.id for one in (await shop.grants()).values() if one.state == grants.INTENT]
    for ahead in (20.0, 100.0, 200.0):
        shop.clock.ahead_s = ahead
        await shop.reaper.one_pass(shop.fence)
    entries = [one for one in await shop.recorded("EndCredential") if one.request_id == intent]
    assert len(entries) == 1
