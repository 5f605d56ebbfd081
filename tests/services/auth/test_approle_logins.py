"""AppRoles: what a secret id is good for, and what ends it."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import pytest

from services.auth.logins.bound_cidrs import is_from, parse_cidrs
from services.auth.logins.lockouts import LOCKED, MAX_FAILURES
from strongbox.access import token_format as access
from strongbox.access.authenticated_records import seal_record
from strongbox.access.token_groups import Groups, groups_of
from strongbox.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated
from strongbox.lease_records.counters import Tally
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from tests.services.auth.support import AuthService


class Machines(AuthService):
    """With a role `web`."""

    async def role(self, name: str = "web", **fields: Any) -> str:
        fields.setdefault("policies", ["app"])
        return str((await self.call("WriteAppRole", name=name, **fields)).role_id)

    async def secret_id(self, name: str = "web", **fields: Any) -> Any:
        return await self.call("CreateSecretId", name=name, **fields)

    async def enter(self, role_id: str, secret_id: str, **options: Any) -> Any:
        return await self.call("LoginAppRole", token="", role_id=role_id, secret_id=secret_id, **options)


@pytest.fixture
def auth() -> Machines:
    return Machines()


async def test_a_login_gives_a_token_as_the_role_says(auth: Machines) -> None:
    role_id = await auth.role(token_ttl={"string_value": "2h"}, token_num_uses=7)
    made = await auth.enter(role_id, (await auth.secret_id()).secret_id)
    assert (list(made.policies), made.ttl, made.parent) == (["app", "default"], 7200, "")
    assert (await auth.call("LookupToken", accessor=made.accessor)).num_uses == 7
    assert auth.recorded("LoginAppRole") == [("auth/approles/web", "ok", "")]


async def test_no_secret_id_is_in_clear_in_etcd_or_the_trail(auth: Machines) -> None:
    made = await auth.secret_id(name="web") if await auth.role() else None
    assert made is not None
    await auth.enter((await auth.call("ReadAppRole", name="web")).role_id, made.secret_id)
    for key, fact in auth.store.facts.items():
        assert made.secret_id.encode() not in key + (fact.value or b"")
    assert all(made.secret_id not in repr(one) for one in auth.pipeline.audited)


async def test_uses_run_out_at_the_very_login(auth: Machines) -> None:
    role_id = await auth.role(secret_id_num_uses=2)
    made = await auth.secret_id()
    assert made.num_uses == 2
    for _ in range(2):
        await auth.enter(role_id, made.secret_id)
    with pytest.raises(Unauthenticated):
        await auth.enter(role_id, made.secret_id)
    assert auth.store.keys(keyspace.SECRET_IDS) == []
    assert auth.store.keys(keyspace.SECRET_IDS_DUE) == auth.store.keys(keyspace.SECRET_IDS_BY_ROLE) == []


async def test_a_refused_login_takes_no_use(auth: Machines) -> None:
    role_id = await auth.role(secret_id_num_uses=1, bound_cidrs=["10.0.0.0/8"])
    made = await auth.secret_id()
    for client in ("192.0.2.1", "", "nonsense"):
        with pytest.raises(Unauthenticated):
            await auth.enter(role_id, made.secret_id, client=client)
    await auth.call("DeletePolicy", name="app")
    with pytest.raises(PermissionDenied):
        await auth.enter(role_id, made.secret_id, client="10.1.2.3")
    auth.put_policy("app", {"secret/app/*": "read"})
    await auth.enter(role_id, made.secret_id, client="10.1.2.3")


async def test_a_secret_id_expires_at_the_very_millisecond(auth: Machines) -> None:
    role_id = await auth.role(secret_id_ttl={"number_value": 60})
    made = await auth.secret_id()
    assert made.ttl == 60
    auth.store.now_ms += 59_999
    await auth.enter(role_id, made.secret_id)
    auth.store.now_ms += 1
    with pytest.raises(Unauthenticated):
        await auth.enter(role_id, made.secret_id)


async def test_what_is_asked_for_one_secret_id_only_narrows(auth: Machines) -> None:
    role_id = await auth.role(
        secret_id_ttl={"number_value": 600}, secret_id_num_uses=5, bound_cidrs=["10.0.0.0/8", "2001:db8::/32"]
    )
    for wider in (
        {"ttl": {"number_value": 601}}, {"num_uses": 6}, {"bound_cidrs": ["0.0.0.0/0"]},
        {"bound_cidrs": ["10.0.0.0/16", "192.0.2.0/24"]}, {"bound_cidrs": ["2001::/16"]},
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            await auth.secret_id(**wider)
    made = await auth.secret_id(ttl={"number_value": 60}, num_uses=1, bound_cidrs=["10.1.0.0/16"])
    assert (made.ttl, made.num_uses) == (60, 1)
    with pytest.raises(Unauthenticated):
        await auth.enter(role_id, made.secret_id, client="10.2.0.1")
    await auth.enter(role_id, made.secret_id, client="::ffff:10.1.0.1")


async def test_the_roles_bounds_count_as_they_are_at_the_login(auth: Machines) -> None:
    role_id = await auth.role()
    made = await auth.secret_id()
    await auth.role(bound_cidrs=["10.0.0.0/8"])
    with pytest.raises(Unauthenticated):
        await auth.enter(role_id, made.secret_id)


async def test_a_secret_id_of_another_role_or_of_a_role_made_anew_fits_nothing(auth: Machines) -> None:
    role_id, other = await auth.role(), await auth.role("other")
    made = await auth.secret_id()
    with pytest.raises(Unauthenticated):
        await auth.enter(other, made.secret_id)
    assert await auth.role() == role_id  # a role that is replaced keeps its id
    await auth.enter(role_id, made.secret_id)
    await auth.call("DeleteAppRole", name="web")
    anew = await auth.role()
    assert anew != role_id
    for one in (role_id, anew):
        with pytest.raises(Unauthenticated):
            await auth.enter(one, made.secret_id)


async def test_one_secret_id_is_revoked_by_its_accessor_and_only_through_its_role(auth: Machines) -> None:
    role_id = await auth.role()
    await auth.role("other")
    made, kept = await auth.secret_id(), await auth.secret_id()
    await auth.call("RevokeSecretId", name="other", accessor=made.accessor)
    await auth.enter(role_id, made.secret_id)
    for _ in range(2):
        await auth.call("RevokeSecretId", name="web", accessor=made.accessor)
    with pytest.raises(Unauthenticated):
        await auth.enter(role_id, made.secret_id)
    await auth.enter(role_id, kept.secret_id)
    with pytest.raises(NotFound):
        await auth.call("RevokeSecretId", name="nobody", accessor=made.accessor)


async def test_failures_are_recorded_five_times_and_lock_nobody_out(auth: Machines) -> None:
    role_id = await auth.role()
    made = await auth.secret_id()
    for _ in range(MAX_FAILURES + 3):
        with pytest.raises(Unauthenticated):
            await auth.enter(role_id, "sbs." + "A" * 43)
    path = "auth/approles/web"
    assert auth.recorded("LoginAppRole") == [(path, "refused", "UNAUTHENTICATED")] * 4 + [
        (path, "refused", LOCKED)
    ]
    assert len(auth.strangers) == 3
    await auth.enter(role_id, made.secret_id)
    with pytest.raises(Unauthenticated):
        await auth.enter("00000000-0000-0000-0000-000000000000", made.secret_id)
    assert len(auth.strangers) == 4


async def test_forged_and_copied_records_grant_nothing(auth: Machines) -> None:
    role_id, made = await auth.role(), await auth.secret_id() if await auth.role() else None
    assert made is not None
    (key,) = auth.store.keys(keyspace.SECRET_IDS)
    copied = key[:-1] + (b"0" if key[-1:] != b"0" else b"1")
    auth.store.seed(copied, auth.store.value(key))
    auth.store.seed(key, storage.SecretIdRecord(role_id=role_id, expires_ms=2**60).SerializeToString())
    with pytest.raises(Unauthenticated):
        await auth.enter(role_id, made.secret_id)


async def test_a_role_id_entry_that_leads_to_another_role_is_not_believed(auth: Machines) -> None:
    auth.put_policy("mighty", {"*": "read"})
    role_id, mighty = await auth.role(), await auth.role("mighty", policies=["mighty"])
    made = await auth.secret_id()
    auth.store.seed(keyspace.ROLE_IDS + role_id.encode(), b"mighty")
    with pytest.raises(Unauthenticated):
        await auth.enter(role_id, made.secret_id)
    assert mighty != role_id


async def test_an_expired_secret_id_is_cleared_away_and_a_renewed_one_is_not(auth: Machines) -> None:
    await auth.role(secret_id_ttl={"number_value": 60})
    await auth.secret_id()
    (due,) = auth.store.keys(keyspace.SECRET_IDS_DUE)
    auth.store.run(lambda view: auth.servicer._secret_ids.expire(view, due, Tally()))
    assert len(auth.store.keys(keyspace.SECRET_IDS)) == 1
    auth.store.now_ms += 120_000
    auth.store.run(lambda view: auth.servicer._secret_ids.expire(view, due, Tally()))
    for prefix in (keyspace.SECRET_IDS, keyspace.SECRET_IDS_DUE, keyspace.SECRET_IDS_BY_ROLE):
        assert auth.store.keys(prefix) == []


async def test_who_hands_out_secret_ids_need_not_write_roles_nor_the_other_way(auth: Machines) -> None:
    await auth.role()
    auth.put_policy("deployer", {"auth/approles/web/secret-id": "write delete"})
    auth.put_policy("roles", {"auth/approles/*": "sudo read", "auth/approles/+": "write"})
    deployer, writer = auth.add_token(policies=["deployer"]), auth.add_token(policies=["roles"])
    await auth.secret_id(token=deployer)
    for refused in (auth.role(token=deployer), auth.secret_id(token=writer), auth.role(token=writer)):
        with pytest.raises(PermissionDenied):
            await refused


async def test_a_secret_id_of_a_role_with_root_is_made_by_root_alone(auth: Machines) -> None:
    await auth.role("mighty", policies=["root"])
    auth.put_policy("manager", {"auth/approles/*": "read write sudo"})
    manager = auth.add_token(policies=["manager"])
    with pytest.raises(PermissionDenied):
        await auth.secret_id("mighty", token=manager)
    assert (await auth.secret_id("mighty")).secret_id


def test_networks_are_counted_before_they_are_looked_at() -> None:
    with pytest.raises(InvalidInput):
        parse_cidrs(repeat("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("client", "cidrs", "inside"),
    [
        ("10.0.0.1", ["10.0.0.0/8"], True), ("11.0.0.1", ["10.0.0.0/8"], False), ("anything", [], True),
        ("::ffff:10.0.0.1", ["10.0.0.0/8"], True), ("2001:db8::1", ["10.0.0.0/8"], False),
        ("2001:db8::1", ["2001:db8::/32"], True), ("", ["0.0.0.0/0"], False),
        ("10.0.0.1 ", ["0.0.0.0/0"], False),
    ],
)  # fmt: skip
def test_an_address_is_in_a_network_or_not(client: str, cidrs: list[str], inside: bool) -> None:
    assert is_from(client, cidrs) is inside


def test_a_secret_ids_record_is_authenticated_for_its_own_key(auth: Machines) -> None:
    record = storage.SecretIdRecord(role_id="x").SerializeToString()
    key = keyspace.SECRET_IDS + b"a"
    auth.store.seed(keyspace.SECRET_IDS + b"b", seal_record(auth.keys, key, record))
    found = auth.guard.lookup.record(auth.store.view(), keyspace.SECRET_IDS + b"b", storage.SecretIdRecord)
    assert found is None


async def test_each_secret_id_is_a_holder_of_its_own_for_all_tokens_it_gives(auth: Machines) -> None:
    auth.put_policy("maker", {"auth/tokens": "write"})
    role_id = await auth.role(policies=["maker"])
    one, other = await auth.secret_id(), await auth.secret_id()

    def groups(token: str) -> Groups:
        record = auth.guard.lookup.token(auth.store.view(), access.digest(token))
        assert record is not None
        return groups_of(record)

    logins = [await auth.enter(role_id, made.secret_id) for made in (one, one, other)]
    told = [groups(login.token) for login in logins]
    assert told[0] == told[1] == (f"secret-id/{one.accessor}", "approles/web")
    assert told[2] == (f"secret-id/{other.accessor}", "approles/web")
    child = await auth.call("CreateToken", token=logins[0].token, policies=["maker"])
    below = await auth.call("CreateToken", token=child.token, policies=["maker"])
    assert groups(below.token) == told[0]
