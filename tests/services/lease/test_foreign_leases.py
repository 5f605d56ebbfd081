"""Whoever has no right to a lease cannot renew it, end it or learn of it, whatever he knows of it."""

from __future__ import annotations

import pytest

from services.lease import credential_lease, repository
from services.lease.calls import connections
from strongbox.errors import InvalidInput, NotFound, PermissionDenied
from strongbox.lease_records.counters import Tally
from strongbox.store.decisions.view import View
from tests.services.lease.support import Lease

CALLS = ("GetLease", "RenewLease", "RevokeLease")


def issued(lease: Lease, token: str, role: str = "app") -> str:
    """As issuing a credential leaves it; returns the id. Its connection is not there."""
    now_ms = lease.store.now_ms
    record = credential_lease.Record(
        id=credential_lease.fresh_id(), path=f"dynamic-postgres/{role}", accessor=lease.accessor_of(token),
        state=credential_lease.ACTIVE, role=role, connection="c", username="sb_0123456789abcdef", ttl_s=3600,
        issued_ms=now_ms, expires_ms=now_ms + 3_600_000, max_expires_ms=now_ms + 7_200_000,
    )  # fmt: skip

    def put(view: View) -> None:
        tally = Tally()
        repository.put_grant(view, lease.keys, record, None, tally)
        tally.settle(view)

    lease.store.run(put)
    return record.id


def found(lease: Lease, name: str) -> credential_lease.Record:
    record = repository.find_grant(lease.store.view(), lease.keys, name)
    assert record is not None
    return record


async def test_a_known_id_of_somebody_else_renews_and_ends_nothing(lease: Lease) -> None:
    holder = lease.reader(dynamic_postgres__app="read")
    names = [issued(lease, holder), lease.hold(holder, "secret/a")]
    before, state = found(lease, names[0]), lease.state(names[1])
    strangers = [
        lease.reader(secret__a="read"),
        lease.reader(**{"dynamic-postgres__ALL": "read write delete", "secret__ALL": "read write delete"}),
        lease.reader(**{"leases__dynamic-postgres__b": "read write delete", "leases__secret__b": "write"}),
        lease.reader(**{"leases__ALL": "read write delete", "leases__dynamic-postgres__app": "deny",
                        "leases__secret__a": "deny"}),
    ]  # fmt: skip
    for stranger in strangers:
        for name in names:
            for call in CALLS:
                with pytest.raises(PermissionDenied):
                    await lease.call(call, stranger, id=name)
    assert (found(lease, names[0]), lease.state(names[1])) == (before, state)
    refusals = [one for one in lease.pipeline.audited if one.outcome == "refused"]
    assert len(refusals) == len(strangers) * len(names) * len(CALLS)
    assert {one.path for one in refusals} == {"leases/dynamic-postgres/app", "leases/secret/a"}


async def test_each_right_on_the_leases_path_allows_its_own_call_only(lease: Lease) -> None:
    holder = lease.reader(secret__a="read")
    name = lease.hold(holder, "secret/a")
    for capability, allowed in (("read", "GetLease"), ("write", "RenewLease"), ("delete", "RevokeLease")):
        stranger = lease.reader(leases__secret__a=capability)
        for call in CALLS:
            if call == allowed:
                await lease.call(call, stranger, id=name)
                continue
            with pytest.raises(PermissionDenied):
                await lease.call(call, stranger, id=name)
    assert lease.state(name) == "REVOKED"


async def test_a_renewal_by_somebody_else_stays_within_the_holders_token(lease: Lease) -> None:
    now_ms = lease.store.now_ms
    token = lease.add_token(policies=["root"], expires_ms=now_ms + 60_000)
    name = lease.hold(token, "secret/a", ttl_s=60)
    renewed = await lease.call("RenewLease", id=name)  # by the root token, which never ends
    assert renewed.ttl == 60
    lease.drop(token)
    with pytest.raises(Exception, match="gone"):
        await lease.call("RenewLease", id=name)


async def test_who_may_renew_a_credential_is_asked_before_its_server_is(lease: Lease) -> None:
    name = issued(lease, lease.reader(dynamic_postgres__app="read"))
    with pytest.raises(NotFound, match="connection"):
        await lease.call("RenewLease", lease.reader(**{"leases__dynamic-postgres__app": "write"}), id=name)


async def test_a_prefix_ends_nothing_that_the_caller_may_not_end(lease: Lease) -> None:
    holder = lease.reader(secret__ALL="read")
    names = {path: lease.hold(holder, path) for path in ("secret/app/a", "secret/app/b", "secret/other")}
    partly = lease.reader(leases__secret__app__ALL="delete", leases__secret__app__b="deny")
    with pytest.raises(PermissionDenied):
        await lease.call("RevokeLeasePrefix", partly, prefix="secret/")
    told = await lease.call("RevokeLeasePrefix", partly, prefix="secret/app/")
    assert told.revoked == 1
    assert {path: lease.state(name) for path, name in names.items()} == {
        "secret/app/a": "REVOKED", "secret/app/b": "ACTIVE", "secret/other": "ACTIVE",
    }  # fmt: skip


async def test_who_may_not_write_a_connection_has_no_server_called_and_no_key_wrapped(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = list[str]()

    async def check(*_: object) -> str:
        called.append("server")
        raise InvalidInput("says no")

    async def wrap(*_: object) -> list[object]:
        called.append("wrap")
        return []

    monkeypatch.setattr(connections, "_check", check)
    monkeypatch.setattr(lease.envelopes, "wrap", wrap)
    wanted = {"name": "c", "dsn": "postgresql://db.example:5432/app", "username": "u", "password": "p" * 20}
    with pytest.raises(PermissionDenied):
        await lease.call("WritePostgresConnection", lease.reader(sys__ALL="read"), **wanted)
    assert not called
    refused = lease.pipeline.audited[-1]
    assert (refused.op, refused.outcome) == ("WritePostgresConnection", "refused")
    with pytest.raises(InvalidInput):
        await lease.call("WritePostgresConnection", **wanted)
    assert called == ["server"]  # which said no: nothing to wrap
