"""Users and passwords: what a login gives, what it tells, when it locks."""

from __future__ import annotations

import asyncio
import unicodedata

import pytest
from argon2 import PasswordHasher

from services.auth.logins.lockouts import BURST, LOCK_MS, LOCKED, MAX_FAILURES, SOURCES, source_key
from strongbox.access.authenticated_records import seal_record
from strongbox.errors import InvalidInput, NotFound, PermissionDenied, RateLimited, Sealed, Unauthenticated
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from tests.services.auth.support import PASSWORD, AuthService

MINUTE_MS = 60_000


@pytest.fixture
def auth() -> AuthService:
    return AuthService()


async def fail(auth: AuthService, times: int = 1, name: str = "alice") -> None:
    for _ in range(times):
        with pytest.raises(Unauthenticated) as refused:
            await auth.login(name, "wrong horse battery staple")
        assert refused.value.message == "the login was refused"


async def test_a_login_gives_a_token_of_the_users_policies_that_is_nobodys_child(auth: AuthService) -> None:
    await auth.user(token_ttl={"string_value": "90s"})
    made = await auth.login()
    assert (list(made.policies), made.ttl, made.parent) == (["app", "default"], 90, "")
    assert (await auth.call("LookupSelf", token=made.token)).display_name == "user alice"
    assert auth.recorded("LoginUser") == [("auth/users/alice", "ok", "")]
    assert auth.pipeline.audited[-2].accessor == made.accessor


async def test_neither_password_nor_hash_nor_token_is_in_clear_in_etcd_or_told(auth: AuthService) -> None:
    await auth.user()
    made = await auth.login()
    await fail(auth)
    for key, fact in auth.store.facts.items():
        assert PASSWORD.encode() not in key + (fact.value or b"")
        assert made.token.encode() not in key + (fact.value or b"")
    assert "argon2" not in str(await auth.call("ReadUser", name="alice"))
    assert all(PASSWORD not in repr(one) and made.token not in repr(one) for one in auth.pipeline.audited)


async def test_wrong_unknown_and_locked_get_one_answer_for_the_same_work(auth: AuthService) -> None:
    await auth.user()
    work = []
    for name, password in (("alice", "x"), ("nobody", PASSWORD), ("Alice", PASSWORD), ("alice", "")):
        verified, revision = auth.passwords.verified, auth.store.revision
        with pytest.raises(Unauthenticated) as refused:
            await auth.login(name, password)
        work.append((auth.passwords.verified - verified, auth.store.revision - revision, str(refused.value)))
    await fail(auth, MAX_FAILURES)
    verified, revision = auth.passwords.verified, auth.store.revision
    with pytest.raises(Unauthenticated) as refused:
        await auth.login()  # the right one, but locked
    work.append((auth.passwords.verified - verified, auth.store.revision - revision, str(refused.value)))
    assert set(work) == {(1, 1, "the login was refused")}


async def test_five_failures_lock_for_a_quarter_of_an_hour_and_not_longer(auth: AuthService) -> None:
    await auth.user()
    await fail(auth, MAX_FAILURES - 1)
    await auth.login()  # clears the count
    await fail(auth, MAX_FAILURES)
    told = await auth.call("ReadUser", name="alice")
    assert (told.failures, told.locked_until.ToMilliseconds()) == (5, auth.store.now_ms + LOCK_MS)
    auth.store.now_ms += LOCK_MS - 1
    with pytest.raises(Unauthenticated):
        await auth.login()
    auth.store.now_ms += 1  # what was refused meanwhile did not prolong it
    await auth.login()
    await fail(auth, MAX_FAILURES - 1)
    await auth.login()


async def test_failures_are_forgotten_a_quarter_of_an_hour_after_the_last(auth: AuthService) -> None:
    await auth.user()
    for _ in range(3):
        await fail(auth, MAX_FAILURES - 1)
        auth.store.now_ms += LOCK_MS
    await auth.login()


@pytest.mark.parametrize(
    "other", ["Alice", "ALICE", "alice ", "al\u0131ce", "\u0430lice", "alice%20", "./alice"]
)
async def test_another_spelling_is_nobody_so_it_evades_no_lock(auth: AuthService, other: str) -> None:
    await auth.user()
    await fail(auth, MAX_FAILURES)
    with pytest.raises((Unauthenticated, InvalidInput)):
        await auth.login(other)
    with pytest.raises((NotFound, InvalidInput)):
        await auth.call("ReadUser", name=other)
    with pytest.raises(InvalidInput):
        await auth.user(other)


async def test_refusals_are_recorded_until_the_lock_and_counted_from_then_on(auth: AuthService) -> None:
    await auth.user()
    await fail(auth, MAX_FAILURES + 4)
    path = "auth/users/alice"
    refusals = [(path, "refused", "UNAUTHENTICATED")] * 4 + [(path, "refused", LOCKED)]
    assert auth.recorded("LoginUser") == refusals
    assert len(auth.strangers) == 4
    await fail(auth, 3, "nobody")
    assert auth.recorded("LoginUser") == refusals
    assert len(auth.strangers) == 7


async def test_guesses_in_parallel_gain_nothing(auth: AuthService) -> None:
    """The right guess comes last of ten that were all begun before the first was decided."""
    await auth.user()
    guesses = [auth.login("alice", f"guess number {n}") for n in range(9)] + [auth.login()]
    results = await asyncio.gather(*guesses, return_exceptions=True)
    assert all(isinstance(result, Unauthenticated) for result in results)


async def test_a_source_that_was_refused_too_often_is_slowed_down_and_others_are_not(
    auth: AuthService,
) -> None:
    key = auth_source_key(auth)
    auth.store.seed(key, storage.SourceRecord(left=1500, at_ms=auth.store.now_ms).SerializeToString())
    await auth.user()
    await fail(auth)
    with pytest.raises(RateLimited) as refused:
        await auth.login()
    assert refused.value.metadata == {"retry_after": "1"}
    assert auth.passwords.verified == 1  # nothing is hashed for it
    await auth.login(client="198.51.100.1")
    auth.store.now_ms += 1000
    await auth.login()
    auth.store.now_ms += BURST * 10_000
    await fail(auth)
    assert storage.SourceRecord.FromString(auth.store.value(key) or b"").left == (BURST - 1) * 1000


def auth_source_key(auth: AuthService) -> bytes:
    return source_key(auth.keys, "192.0.2.7")


async def test_sources_share_a_bounded_number_of_records(auth: AuthService) -> None:
    keys = {source_key(auth.keys, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(20_000)}
    assert len(keys) <= SOURCES
    assert source_key(auth.keys, "2001:db8::1") == source_key(auth.keys, "2001:db8::ffff:2")
    assert source_key(auth.keys, "::ffff:192.0.2.7") == source_key(auth.keys, "192.0.2.7")
    assert source_key(auth.keys, "") == source_key(auth.keys, "nonsense")


async def test_a_password_changed_while_it_is_verified_is_verified_again(auth: AuthService) -> None:
    await auth.user()
    verify = auth.passwords.verify

    async def slow(stored: str | None, password: str, deadline: float) -> bool:
        right = await verify(stored, password, deadline)
        if auth.passwords.verified == 1:
            await auth.user(password="another password altogether")
        return right

    auth.passwords.verify = slow  # type: ignore[method-assign]
    with pytest.raises(Unauthenticated):
        await auth.login()
    assert auth.passwords.verified == 2


async def test_a_hash_of_other_parameters_by_another_implementation_verifies_and_is_renewed(
    auth: AuthService,
) -> None:
    await auth.user()
    key = keyspace.USERS + b"alice"
    other = PasswordHasher(time_cost=1, memory_cost=256, parallelism=2).hash(PASSWORD)
    seed_hash(auth, key, other)
    await auth.login()
    assert "m=19456,t=2,p=1" in hash_of(auth)
    await auth.login()
    await fail(auth)


def hash_of(auth: AuthService) -> str:
    record = auth.guard.lookup.record(auth.store.view(), keyspace.USERS + b"alice", storage.UserRecord)
    assert record is not None
    return str(record.password_hash)


def seed_hash(auth: AuthService, key: bytes, text: str) -> None:
    record = storage.UserRecord(name="alice", password_hash=text, policies=["app"])
    auth.store.seed(key, seal_record(auth.keys, key, record.SerializeToString()))


async def test_a_forged_user_is_nobody(auth: AuthService) -> None:
    await auth.user()
    stolen = auth.store.value(keyspace.USERS + b"alice")
    auth.store.seed(keyspace.USERS + b"mallory", stolen)
    with pytest.raises(Unauthenticated):
        await auth.login("mallory")
    assert auth.recorded("LoginUser") == []


async def test_a_policy_that_is_gone_refuses_the_login_and_says_so_to_the_right_password_only(
    auth: AuthService,
) -> None:
    await auth.user()
    await auth.call("DeletePolicy", name="app")
    await fail(auth)
    with pytest.raises(PermissionDenied, match="does not exist"):
        await auth.login()
    assert auth.recorded("LoginUser")[-1] == ("auth/users/alice", "refused", "PERMISSION_DENIED")


async def test_sealed_wins_over_whatever_is_wrong_with_a_login(auth: AuthService) -> None:
    auth.store.seed(keyspace.SEAL_STATE, b"sealed:2")
    for name, password in (("alice", PASSWORD), ("a/b", ""), ("x" * 500, "y" * 5000)):
        with pytest.raises(Sealed):
            await auth.login(name, password)


@pytest.mark.parametrize("password", ["", "short", "x" * 11, "x" * 1025, "\u00bd" * 3])
async def test_a_password_is_twelve_characters_or_more(auth: AuthService, password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await auth.user(password=password)
    assert password == "" or password not in refused.value.message


@pytest.mark.parametrize(
    "password", ["x" * 12, " " * 12, "\u00e9" * 12, "p\u00e4ssw\u00f6rter sind lang", "\U0001f511" * 12]
)
async def test_any_twelve_characters_do_in_whatever_unicode_form(auth: AuthService, password: str) -> None:
    await auth.user(password=password)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        await auth.login(password=unicodedata.normalize(form, password))  # type: ignore[arg-type]


async def test_who_writes_users_gives_what_he_has_and_takes_over_nobody_mightier(
    auth: AuthService,
) -> None:
    auth.put_policy("clerk", {"auth/users/*": "read write delete list", "secret/own": "read"})
    auth.put_policy("admin", {"auth/users/*": "write sudo"})
    clerk = auth.add_token(policies=["clerk"])
    await auth.user("mighty", policies=["root"])
    await auth.user("bob", token=clerk, policies=["clerk"])
    for wanted in (["app"], ["root"], ["Root"]):
        with pytest.raises(PermissionDenied):
            await auth.user("carol", token=clerk, policies=wanted)
    for fields in ({"policies": []}, {"policies": ["clerk"]}):
        with pytest.raises(PermissionDenied):  # a new password for the root user is a promotion
            await auth.user("mighty", token=clerk, **fields)
    admin = auth.add_token(policies=["admin"])
    await auth.user("carol", token=admin, policies=["app"])
    with pytest.raises(PermissionDenied):
        await auth.user("carol", token=admin, policies=["root"])
    with pytest.raises(PermissionDenied):
        await auth.user("mighty", token=admin, policies=["app"])


async def test_nothing_is_hashed_for_who_may_not_write(auth: AuthService) -> None:
    small = auth.add_token(policies=["app"])
    with pytest.raises(PermissionDenied):
        await auth.user(token=small)
    with pytest.raises(Unauthenticated):
        await auth.user(token="")
    assert auth.passwords.hashed == 0
    assert auth.recorded("WriteUser") == [("auth/users/alice", "refused", "PERMISSION_DENIED")]
    await auth.user()
    assert len(auth.recorded("WriteUser")) == 2


async def test_a_write_without_a_password_keeps_it_and_a_lock_ends_with_a_new_one(auth: AuthService) -> None:
    await auth.user()
    await fail(auth, MAX_FAILURES)
    await auth.call("WriteUser", name="alice", policies=[])
    with pytest.raises(Unauthenticated):
        await auth.login()
    await auth.user(password="a new password for alice")
    assert list((await auth.login(password="a new password for alice")).policies) == ["app", "default"]
    with pytest.raises(InvalidInput, match="new user needs"):
        await auth.call("WriteUser", name="bob", policies=[])


async def test_a_deleted_user_is_nobody_and_comes_back_without_a_past(auth: AuthService) -> None:
    await auth.user()
    await fail(auth, MAX_FAILURES)
    await auth.call("DeleteUser", name="alice")
    await auth.call("DeleteUser", name="alice")
    with pytest.raises(Unauthenticated):
        await auth.login()
    await auth.user()
    await auth.login()


async def test_a_listing_of_users_obeys_rules_about_each(auth: AuthService) -> None:
    for name in ("alice", "Bob", "carol"):
        await auth.user(name)
    auth.put_policy("lists", {"auth/users/": "list", "auth/users/Bob": "deny"})
    token = auth.add_token(policies=["lists"])
    assert list((await auth.call("ListUsers")).names) == ["alice", "Bob", "carol"]
    assert list((await auth.call("ListUsers", token=token)).names) == ["alice", "carol"]
