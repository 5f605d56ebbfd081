"""Policies as they are written, read and removed; names that fold alike; listings."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from services.auth import list_filter
from services.auth.policies import Found, Policies, policy_path, require_writable
from services.auth.repository import Repository
from strongbox.access.guard import Caller, Guard
from strongbox.access.policy_engine import Rule
from strongbox.errors import InvalidInput, NotFound, TooLarge
from strongbox.store import keyspace
from strongbox.store.decisions.view import Row
from tests.support.access import FakeCluster, FakeInbound

if TYPE_CHECKING:
    from strongbox.rpc.request_context import Inbound

READ_A = (Rule("secret/a", ("read",)),)


class Auth(FakeCluster):
    """The domain over a fake cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = Guard(self.source)
        self.policies = Policies(Repository(self.guard.lookup))

    def write(self, name: str, rules: tuple[Rule, ...] = READ_A) -> None:
        self.store.run(lambda view: self.policies.write(view, name, rules))

    def read(self, name: str) -> Found:
        return cast("Found", self.store.run(lambda view: self.policies.read(view, name)).value)

    def caller(self, token: str) -> Caller:
        inbound = cast("Inbound", FakeInbound(token))
        return cast("Caller", self.store.run(lambda v: self.guard.authenticate(v, inbound)).value)

    def policy_rows(self) -> list[Row]:
        found = self.store.range(keyspace.POLICIES, keyspace.prefix_end(keyspace.POLICIES))
        return cast("list[Row]", found)


@pytest.fixture
def auth() -> Auth:
    return Auth()


def test_a_policy_is_read_as_it_was_written_at_its_revision(auth: Auth) -> None:
    auth.write("App")
    assert auth.read("App") == Found("App", READ_A, auth.store.revision)


def test_names_that_fold_alike_cannot_both_exist(auth: Auth) -> None:
    auth.write("App")
    for other in ("app", "APP"):
        with pytest.raises(InvalidInput, match="other letters"):
            auth.write(other)
    auth.write("App", (Rule("secret/b", ("read",)),))
    assert auth.read("App").rules[0].path == "secret/b"


def test_a_policy_answers_to_its_own_spelling_only(auth: Auth) -> None:
    auth.write("App")
    with pytest.raises(NotFound):
        auth.read("app")
    with pytest.raises(NotFound):
        auth.store.run(lambda view: auth.policies.delete(view, "app"))
    assert policy_path("App") != policy_path("app")


def test_deleting_what_is_not_there_succeeds(auth: Auth) -> None:
    auth.write("app")
    for _ in range(2):
        auth.store.run(lambda view: auth.policies.delete(view, "app"))
    with pytest.raises(NotFound):
        auth.read("app")


@pytest.mark.parametrize(
    "name", ["root", "default", "Root", "DEFAULT", "", "a/b", "a b", "..", "x" * 129, "\u212a"]
)
def test_built_in_and_illegal_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        require_writable(name)


def test_built_in_policies_can_be_read(auth: Auth) -> None:
    assert auth.read("default").rules[0].path == "auth/tokens/self"
    assert auth.read("root").rules[0].path == "*"


def test_a_policy_has_at_most_256_rules_and_64_kib(auth: Auth) -> None:
    auth.write("app", READ_A * 256)
    with pytest.raises(InvalidInput, match="256"):
        auth.write("app", READ_A * 257)
    with pytest.raises(TooLarge):
        auth.write("app", (Rule("x" * 512, ("read",)),) * 256)


def test_a_forged_policy_is_absent(auth: Auth) -> None:
    auth.store.seed(keyspace.policy("app"), b"forged")
    with pytest.raises(NotFound):
        auth.read("app")


def test_a_listing_obeys_a_deny_below_it_and_survives_a_forged_row(auth: Auth) -> None:
    auth.put_policy("lister", {"sys/policies/*": "list", "sys/policies/hidden": "deny"})
    auth.put_policy("hidden", {"secret/a": "read"})
    auth.store.seed(keyspace.policy("forged"), b"\xff\xff")
    token = auth.add_token(policies=["lister"])
    shown = list_filter.shown_policies(auth.caller(token), auth.policy_rows(), with_built_in=True)
    assert shown == ["default", "root", "lister"]
