"""Who may see and end which lease."""

from __future__ import annotations

from typing import Any

import pytest

from services.lease import servicer
from services.lease.leases.lease_decisions import is_below
from strongbox.errors import InvalidInput, InvalidPath, NotFound, PermissionDenied, Unauthenticated
from strongbox.lease_records import index
from strongbox.store import keyspace
from tests.services.lease.support import Lease

UNKNOWN = "r" + "0" * 40


async def test_a_lease_tells_who_holds_what_until_when(lease: Lease) -> None:
    token = lease.reader(secret__a="read")
    name = lease.hold(token, "secret/a")
    told = await lease.call("GetLease", id=name)
    assert (told.id, told.state, told.path) == (name, "ACTIVE", "secret/a")
    assert told.accessor == lease.accessor_of(token)
    assert told.expires_at.seconds - told.issued_at.seconds == 3600


async def test_the_holder_sees_and_ends_his_own_whatever_his_policies_say(lease: Lease) -> None:
    token = lease.reader(secret__a="read", leases__ALL="deny")
    name = lease.hold(token, "secret/a")
    assert (await lease.call("GetLease", token, id=name)).state == "ACTIVE"
    assert (await lease.call("RevokeLease", token, id=name)).state == "REVOKED"
    assert (await lease.call("RevokeLease", token, id=name)).state == "REVOKED"
    accessor = lease.accessor_of(token)
    assert len((await lease.call("ListLeases", token, accessor=accessor)).leases) == 1


async def test_a_guessed_id_of_somebody_else_is_403_there_or_not(lease: Lease) -> None:
    name = lease.hold(lease.reader(secret__a="read"), "secret/a")
    stranger = lease.reader(secret__a="read", leases__secret__b="read delete")
    for guessed in (name, UNKNOWN, "", "x" * 41, "../../auth"):
        for call in ("GetLease", "RevokeLease"):
            with pytest.raises(PermissionDenied):
                await lease.call(call, stranger, id=guessed)
    assert lease.state(name) == "ACTIVE"


async def test_an_unknown_id_is_404_for_who_may_see_all_leases(lease: Lease) -> None:
    auditor = lease.reader(leases__ALL="read delete")
    for guessed in (UNKNOWN, "x"):
        for call in ("GetLease", "RevokeLease"):
            with pytest.raises(NotFound):
                await lease.call(call, auditor, id=guessed)


async def test_seeing_needs_read_and_ending_needs_delete_on_the_leases_path(lease: Lease) -> None:
    name = lease.hold(lease.reader(secret__a="read"), "secret/a")
    reader = lease.reader(leases__secret__a="read")
    assert (await lease.call("GetLease", reader, id=name)).id == name
    with pytest.raises(PermissionDenied):
        await lease.call("RevokeLease", reader, id=name)
    await lease.call("RevokeLease", lease.reader(leases__secret__a="delete"), id=name)
    assert lease.state(name) == "REVOKED"


async def test_the_audit_record_names_the_path_of_the_lease(lease: Lease) -> None:
    name = lease.hold(lease.reader(secret__a="read"), "secret/a")
    await lease.call("RevokeLease", id=name)
    last = lease.pipeline.audited[-1]
    assert (last.op, last.path, last.outcome) == ("RevokeLease", "leases/secret/a", "ok")


async def test_a_path_answers_who_still_holds_it(lease: Lease) -> None:
    holders = [lease.reader(secret__a="read") for _ in range(5)]
    names = [lease.hold(holder, "secret/a") for holder in holders]
    lease.hold(holders[0], "secret/a/b")
    await lease.call("RevokeLease", id=names[0])
    found = await lease.call("ListLeases", path="secret/a")
    assert sorted(told.id for told in found.leases) == sorted(names)
    active = await lease.call("ListLeases", path="secret/a", state="ACTIVE")
    assert sorted(told.id for told in active.leases) == sorted(names[1:])


async def test_listing_a_path_needs_read_on_its_leases(lease: Lease) -> None:
    token = lease.reader(leases__secret__b="read", secret__a="read")
    with pytest.raises(PermissionDenied):
        await lease.call("ListLeases", token, path="secret/a")


async def test_leases_of_another_accessor_need_read_on_all_and_obey_a_deny(lease: Lease) -> None:
    holder = lease.reader(secret__ALL="read")
    lease.hold(holder, "secret/a")
    lease.hold(holder, "secret/b")
    accessor = lease.accessor_of(holder)
    with pytest.raises(PermissionDenied):
        await lease.call("ListLeases", lease.reader(leases__secret__a="read"), accessor=accessor)
    auditor = lease.reader(leases__ALL="read", leases__secret__b="deny")
    found = await lease.call("ListLeases", auditor, accessor=accessor)
    assert [told.path for told in found.leases] == ["secret/a"]


async def test_pages_follow_each_other_without_gap_or_repetition(lease: Lease) -> None:
    names = [lease.hold(lease.reader(secret__a="read"), "secret/a") for _ in range(7)]
    seen: list[str] = []
    token = ""
    while True:
        page = await lease.call("ListLeases", path="secret/a", page_size=3, page_token=token)
        seen += [told.id for told in page.leases]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(names)


async def test_an_entry_that_leads_to_another_lease_shows_nothing(lease: Lease) -> None:
    name = lease.hold(lease.reader(secret__a="read"), "secret/a")
    lease.store.seed(index.by_path_key("secret/b", name), b"")
    lease.store.seed(index.by_path_key("secret/b", UNKNOWN), b"")
    assert not (await lease.call("ListLeases", path="secret/b")).leases


async def test_an_expired_lease_says_so_before_it_is_reaped(lease: Lease) -> None:
    name = lease.hold(lease.reader(secret__a="read"), "secret/a", ttl_s=5)
    lease.store.now_ms += 5000
    assert (await lease.call("GetLease", id=name)).state == "EXPIRED"


async def test_a_forged_lease_is_not_there(lease: Lease) -> None:
    name = lease.hold(lease.reader(secret__a="read"), "secret/a")
    lease.store.seed(keyspace.read_lease(name), b"forged")
    with pytest.raises(NotFound):
        await lease.call("GetLease", id=name)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"path": "secret/a", "accessor": "x" * 24},
        {"accessor": "short"},
        {"path": "secret/a", "state": "active"},
        {"path": "secret/a", "page_size": -1},
        {"path": "secret/a", "page_token": "!"},
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(lease: Lease, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await lease.call("ListLeases", **fields)


@pytest.mark.parametrize("path", ["secret/../x", "secret//a", "secret/a/", "secret/a\0", "a%2f"])
async def test_a_path_that_is_not_canonical_is_refused(lease: Lease, path: str) -> None:
    with pytest.raises(InvalidPath):
        await lease.call("ListLeases", path=path)


@pytest.mark.parametrize(
    ("path", "prefix", "means"),
    [
        ("dynamic-postgres/app", "dynamic-postgres/app", True),
        ("dynamic-postgres/app/x", "dynamic-postgres/app", True),
        ("dynamic-postgres/app2", "dynamic-postgres/app", False),
        ("dynamic-postgres/app", "dynamic-postgres/app/", False),
        ("dynamic-postgres/app", "dynamic-postgres/", True),
        ("dynamic-postgres/app", "dynamic-postgres", True),
    ],
)
def test_a_prefix_goes_by_whole_segments(path: str, prefix: str, means: bool) -> None:
    assert is_below(path, prefix) is means


async def test_a_prefix_of_one_name_does_not_end_what_is_under_a_longer_one(lease: Lease) -> None:
    token = lease.reader(secret__ALL="read")
    short, long = lease.hold(token, "secret/app", ttl_s=600), lease.hold(token, "secret/app2", ttl_s=600)
    await lease.call("RevokeLeasePrefix", prefix="secret/app")
    assert (lease.state(short), lease.state(long)) == ("REVOKED", "ACTIVE")


async def test_the_pages_of_a_prefix_hold_only_what_it_means(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer, "_PAGE", 2)
    meant = ["secret/app", "secret/app/a", "secret/app/b/c", "secret/app/d"]
    for path in [*meant, *(f"secret/app{more}" for more in ("-1", "-2", ".1", "0", "2/x"))]:
        lease.hold(lease.reader(secret__ALL="read"), path, ttl_s=600)
    pages = [await lease.call("RevokeLeasePrefix", prefix="secret/app")]
    while pages[-1].next_page_token:
        token = pages[-1].next_page_token
        pages.append(await lease.call("RevokeLeasePrefix", prefix="secret/app", page_token=token))
    assert [page.revoked for page in pages] == [2, 2, 0]


async def test_a_token_that_is_revoked_ends_no_further_lease_of_a_prefix(lease: Lease) -> None:
    names = [lease.hold(lease.reader(secret__a="read"), "secret/a") for _ in range(70)]
    token = lease.reader(leases__ALL="delete")
    submit, ended = lease.pipeline.submit, 0

    async def revoking(work: Any) -> Any:
        nonlocal ended
        done = await submit(work)
        if [name for name in names if lease.state(name) == "REVOKED"] and not ended:
            ended = sum(lease.state(name) == "REVOKED" for name in names)
            lease.drop(token)
        return done

    lease.pipeline.submit = revoking  # type: ignore[method-assign]
    with pytest.raises(Unauthenticated):
        await lease.call("RevokeLeasePrefix", token, prefix="secret/a")
    assert sum(lease.state(name) == "REVOKED" for name in names) == ended < len(names)


async def test_each_lease_that_a_prefix_ends_is_recorded_with_its_end(lease: Lease) -> None:
    for _ in range(3):
        lease.hold(lease.reader(secret__a="read"), "secret/a")
    lease.pipeline.audited.clear()
    await lease.call("RevokeLeasePrefix", prefix="secret/a")
    told = [(draft.op, draft.path, bool(draft.accessor)) for draft in lease.pipeline.audited]
    assert told == [
        ("RevokeLeasePrefix", "leases/secret/a", True),
        *[("RevokeLease", "leases/secret/a", True)] * 3,
    ]
