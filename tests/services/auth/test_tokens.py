"""Token rules: what a child gets, how long it lives, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

import pytest

from services.auth.repository import Repository
from services.auth.tokens import (
    DEFAULT_TTL_S,
    MAX_TTL_S,
    UNKNOWN_PATH,
    Fresh,
    Tokens,
    Told,
    Wanted,
    path_of,
    require_sound,
)
from strongbox.access.guard import MAX_ANCESTORS, Caller, Guard
from strongbox.access.token_format import digest
from strongbox.errors import (
    Internal,
    InvalidInput,
    NotFound,
    PermissionDenied,
    StrongBoxError,
    Unauthenticated,
)
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from tests.support.access import FakeCluster, FakeInbound
from tests.support.fakes import FakeOutcome

if TYPE_CHECKING:
    from strongbox.rpc.request_context import Inbound

T = TypeVar("T")
SOME = Wanted(policies=("app",))


class Auth(FakeCluster):
    """The domain over a fake cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = Guard(self.source)
        self.repository = Repository(self.guard.lookup)
        self.tokens = Tokens(self.guard, self.repository)
        self.put_policy("app", {"secret/app/*": "read", "auth/tokens": "write"})
        self.put_policy("admin", {"auth/tokens": "write sudo"})

    def by(self, token: str, decide: Callable[[View, Caller], object]) -> FakeOutcome:
        inbound = cast("Inbound", FakeInbound(token))
        return self.store.run(lambda view: decide(view, self.guard.authenticate(view, inbound)))

    def create(self, by: str, wanted: Wanted = SOME) -> tuple[str, Told]:
        fresh = Fresh.make()
        done = self.by(by, lambda view, caller: self.tokens.create(view, caller, wanted, fresh))
        return fresh.token, cast("Told", done.value)

    def lives(self, token: str) -> bool:
        try:
            self.by(token, lambda view, caller: caller)
        except Unauthenticated:
            return False
        return True

    def renew(self, accessor: str, increment_s: int | None = None) -> Told:
        return cast("Told", self.store.run(lambda v: self.tokens.renew(v, accessor, increment_s)).value)

    def revoke(self, accessor: str) -> None:
        self.store.run(lambda view: self.tokens.revoke(view, accessor))


@pytest.fixture
def auth() -> Auth:
    return Auth()


def test_a_child_has_its_parents_line_default_ttl_and_the_default_policy(auth: Auth) -> None:
    parent, _ = auth.create(auth.root)
    _, told = auth.create(parent)
    assert list(told.record.policies) == ["app", "default"]
    assert list(told.record.ancestors) == [digest(parent), digest(auth.root)]
    assert told.record.expires_ms == auth.store.now_ms + DEFAULT_TTL_S * 1000


def test_a_token_is_nowhere_in_etcd(auth: Auth) -> None:
    token, _ = auth.create(auth.root)
    for key, fact in auth.store.facts.items():
        assert token.encode() not in key + (fact.value or b"")


def test_duplicates_are_dropped_and_names_are_spelt_as_the_policy_is(auth: Auth) -> None:
    auth.put_policy("Web", {"secret/web": "read"})
    _, told = auth.create(auth.root, Wanted(policies=("WEB", "web", "app", "default")))
    assert list(told.record.policies) == ["Web", "app", "default"]


def test_no_default_is_obeyed(auth: Auth) -> None:
    _, told = auth.create(auth.root, Wanted(policies=("app",), no_default=True))
    assert list(told.record.policies) == ["app"]


def test_a_child_never_has_a_policy_its_parent_has_not(auth: Auth) -> None:
    auth.put_policy("other", {"secret/*": "read"})
    parent, _ = auth.create(auth.root)
    for wanted in ("other", "root", "nobody-wrote-this"):
        with pytest.raises(PermissionDenied):
            auth.create(parent, Wanted(policies=(wanted,)))


def test_a_child_does_not_shed_what_denies_its_parent_something(auth: Auth) -> None:
    auth.put_policy("Keys", {"secret/app/keys/*": "deny"})
    parent, _ = auth.create(auth.root, Wanted(policies=("app", "Keys")))
    with pytest.raises(PermissionDenied):
        auth.create(parent, Wanted(policies=("app",)))
    _, told = auth.create(parent, Wanted(policies=("keys", "app")))
    assert list(told.record.policies) == ["Keys", "app", "default"]
    auth.create(parent, Wanted(policies=()))  # which gives nothing, so nothing has to be denied
    auth.put_policy("tokens", {"auth/tokens": "sudo"})
    trusted, _ = auth.create(auth.root, Wanted(policies=("app", "Keys", "tokens")))
    auth.create(trusted, Wanted(policies=("app",)))


def test_a_child_does_not_shed_a_narrower_rule_that_binds_its_parent(auth: Auth) -> None:
    auth.put_policy("wide", {"secret/team/*": "read write"})
    auth.put_policy("narrow", {"secret/team/keys/*": "list"})
    auth.put_policy("beside", {"secret/other/*": "read"})
    parent, _ = auth.create(auth.root, Wanted(policies=("wide", "narrow", "beside", "app")))
    for given in (("wide",), ("wide", "beside"), ("Wide", "app")):
        with pytest.raises(PermissionDenied):
            auth.create(parent, Wanted(policies=given))
    for given in (("wide", "narrow"), ("narrow",), ("beside",), ("app", "beside")):
        auth.create(parent, Wanted(policies=given))
    auth.create(parent, Wanted(policies=("wide", "narrow"), no_default=True))
    auth.put_policy("tokens", {"auth/tokens": "sudo"})
    trusted, _ = auth.create(auth.root, Wanted(policies=("wide", "narrow", "tokens")))
    auth.create(trusted, Wanted(policies=("wide",)))


def test_sudo_on_auth_tokens_gives_any_policy_but_root(auth: Auth) -> None:
    admin, _ = auth.create(auth.root, Wanted(policies=("admin",)))
    _, told = auth.create(admin, Wanted(policies=("app",)))
    assert "app" in told.record.policies
    for spelling in ("root", "Root"):
        with pytest.raises(PermissionDenied):
            auth.create(admin, Wanted(policies=(spelling,)))


def test_a_policy_that_does_not_exist_cannot_be_named(auth: Auth) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        auth.create(auth.root, Wanted(policies=("missing",)))


def test_orphans_and_periods_need_sudo(auth: Auth) -> None:
    parent, _ = auth.create(auth.root)
    for wanted in (replace(SOME, orphan=True), replace(SOME, period_s=60)):
        with pytest.raises(PermissionDenied):
            auth.create(parent, wanted)


def test_an_orphan_outlives_its_maker(auth: Auth) -> None:
    admin, told = auth.create(auth.root, Wanted(policies=("admin",), ttl_s=60))
    orphan, made = auth.create(admin, replace(SOME, orphan=True, ttl_s=600))
    auth.revoke(told.record.accessor)
    assert auth.lives(orphan)
    assert made.record.expires_ms == auth.store.now_ms + 600_000
    assert made.record.parent == ""


def test_a_ttl_is_at_most_32_days_and_at_most_the_parents(auth: Auth) -> None:
    parent, told = auth.create(auth.root, replace(SOME, ttl_s=10 * MAX_TTL_S))
    assert told.record.expires_ms == auth.store.now_ms + MAX_TTL_S * 1000
    short, _ = auth.create(parent, replace(SOME, ttl_s=60))
    _, grandchild = auth.create(short, replace(SOME, ttl_s=600))
    assert grandchild.record.expires_ms == auth.store.now_ms + 60_000


def test_renewing_stays_within_max_ttl_and_within_the_parent_and_never_goes_back(auth: Auth) -> None:
    parent, _ = auth.create(auth.root, replace(SOME, ttl_s=900))
    _, told = auth.create(parent, replace(SOME, ttl_s=60, max_ttl_s=100))
    start = auth.store.now_ms
    accessor = told.record.accessor
    assert auth.renew(accessor, 10).record.expires_ms == start + 60_000
    assert auth.renew(accessor, 90).record.expires_ms == start + 90_000
    assert auth.renew(accessor, 10_000).record.expires_ms == start + 100_000
    _, free = auth.create(parent, replace(SOME, ttl_s=60))
    assert auth.renew(free.record.accessor, 10_000).record.expires_ms == start + 900_000


def test_a_renewed_token_keeps_one_entry_in_the_due_index(auth: Auth) -> None:
    token, told = auth.create(auth.root, replace(SOME, ttl_s=60))
    auth.renew(told.record.accessor, 6000)
    (entry,) = auth.store.keys(keyspace.TOKENS_DUE)
    assert entry.endswith(digest(token).encode())


def test_a_periodic_token_is_renewed_by_its_period(auth: Auth) -> None:
    _, told = auth.create(auth.root, replace(SOME, period_s=120, ttl_s=5))
    auth.store.now_ms += 60_000
    assert auth.renew(told.record.accessor, 9).record.expires_ms == auth.store.now_ms + 120_000


def test_a_dead_token_is_neither_found_nor_renewed(auth: Auth) -> None:
    token, told = auth.create(auth.root, replace(SOME, ttl_s=60))
    auth.store.now_ms += 60_000
    for act in (lambda v: auth.tokens.lookup(v, told.record.accessor),
                lambda v: auth.tokens.renew(v, told.record.accessor, 60)):  # fmt: skip
        with pytest.raises(NotFound):
            auth.store.run(act)
    assert not auth.lives(token)


def test_the_root_token_is_not_renewed(auth: Auth) -> None:
    accessor = cast("Caller", auth.by(auth.root, lambda view, caller: caller).value).accessor
    with pytest.raises(InvalidInput):
        auth.renew(accessor)


def test_revoking_a_parent_kills_child_and_grandchild_at_once(auth: Auth) -> None:
    parent, told = auth.create(auth.root)
    child, made = auth.create(parent)
    grandchild, _ = auth.create(child)
    auth.revoke(told.record.accessor)
    assert [auth.lives(token) for token in (parent, child, grandchild)] == [False, False, False]
    with pytest.raises(NotFound):
        auth.store.run(lambda view: auth.tokens.lookup(view, made.record.accessor))
    assert auth.store.value(keyspace.REVOKED + digest(parent).encode()) == told.record.accessor.encode()


def test_revoking_the_revoked_or_unknown_succeeds(auth: Auth) -> None:
    _, told = auth.create(auth.root)
    auth.revoke(told.record.accessor)
    auth.revoke(told.record.accessor)
    auth.revoke("a" * 24)


def test_an_accessor_entry_pointed_at_another_token_is_no_success_and_hurts_nobody(auth: Auth) -> None:
    token, told = auth.create(auth.root)
    auth.store.seed(keyspace.accessor(told.record.accessor), digest(auth.root).encode())
    with pytest.raises(Internal):
        auth.store.run(lambda view: auth.tokens.lookup(view, told.record.accessor))
    with pytest.raises(Internal):  # "revoked" would be believed, and the token lives
        auth.revoke(told.record.accessor)
    assert auth.lives(auth.root)
    assert auth.lives(token)


def test_a_listing_shows_the_living_only(auth: Auth) -> None:
    auth.create(auth.root)
    parent, gone = auth.create(auth.root)
    auth.create(parent)
    auth.revoke(gone.record.accessor)
    rows = auth.store.range(keyspace.ACCESSORS, keyspace.prefix_end(keyspace.ACCESSORS))
    found = [(row.key.removeprefix(keyspace.ACCESSORS).decode(), row.value.decode()) for row in rows]
    living = auth.store.run(lambda view: auth.tokens.living(view, found)).value
    assert len(found) == 3
    assert len(cast("list[str]", living)) == 2  # the root token and the one that was not revoked


def test_a_line_of_ancestors_is_bounded(auth: Auth) -> None:
    token = auth.root
    for _ in range(MAX_ANCESTORS):
        token, _ = auth.create(token)
    with pytest.raises(InvalidInput, match="ancestors"):
        auth.create(token)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(num_uses=1_000_001),
        Wanted(num_uses=-1),
        Wanted(ttl_s=0),
        Wanted(max_ttl_s=0),
        Wanted(period_s=0),
        Wanted(policies=("a/b",)),
        Wanted(policies=("\u017fecret",)),
        Wanted(policies=("..",)),
        Wanted(policies=("p",) * 65),
        Wanted(display_name="x" * 129),
        Wanted(display_name="a\nb"),
        Wanted(no_default=True),
    ],
)
def test_what_nobody_may_ask_is_refused(wanted: Wanted) -> None:
    with pytest.raises(StrongBoxError) as refused:
        require_sound(wanted)
    assert isinstance(refused.value, InvalidInput)


@pytest.mark.parametrize(
    "accessor", ["", "self", "../policies", "a/b", "*", "+", "\0" * 24, "é" * 24, "A" * 25]
)
def test_what_cannot_be_an_accessor_is_not_found_and_reaches_no_policy_path(
    auth: Auth, accessor: str
) -> None:
    assert path_of(accessor) == UNKNOWN_PATH
    with pytest.raises(NotFound):
        auth.store.run(lambda view: auth.tokens.lookup(view, accessor))
    with pytest.raises(NotFound):
        auth.renew(accessor)
    with pytest.raises(NotFound):
        auth.revoke(accessor)


def test_who_may_not_ask_learns_nothing_of_an_accessors_form(auth: Auth) -> None:
    token = auth.add_token(policies=["app"])
    caller = auth.by(token, lambda view, caller: caller).value
    assert not any(cast("Caller", caller).allows("read", path_of(name)) for name in ("nonsense", "A" * 24))
