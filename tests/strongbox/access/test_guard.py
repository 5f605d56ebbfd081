"""Who is asking, and may he: everything that has to refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from strongbox.access import token_format
from strongbox.access.guard import Caller, Guard
from strongbox.access.policy_engine import CompiledPolicy, Rule
from strongbox.errors import NotInitialized, PermissionDenied, Sealed, Unauthenticated

if TYPE_CHECKING:
    from strongbox.rpc.request_context import Inbound
from strongbox.store import keyspace
from tests.support.access import FakeCluster, FakeInbound, draft
from tests.support.fakes import FakeOutcome

HOUR_MS = 3_600_000


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def ask(cluster: FakeCluster, token: str, capability: str = "read", path: str = "secret/a") -> FakeOutcome:
    guard = Guard(cluster.source)
    inbound = cast("Inbound", FakeInbound(token))
    return cluster.store.run(lambda view: guard.require(view, inbound, capability, path), draft())


def digest_key(token: str) -> bytes:
    return keyspace.token(token_format.digest(token))


def test_the_root_token_may_everything_and_never_expires(cluster: FakeCluster) -> None:
    caller = cast("Caller", ask(cluster, cluster.root, "sudo", "sys/seal").value)
    assert caller.is_root
    assert caller.expires_at_ms == 0


def test_everything_the_decision_rests_on_is_compared(cluster: FakeCluster) -> None:
    cluster.add_policy("app", secret__a="read")
    parent = cluster.add_token(policies=["app"], expires_ms=cluster.store.now_ms + HOUR_MS)
    child = cluster.add_token(
        policies=["app"],
        ancestors=[token_format.digest(parent)],
        expires_ms=cluster.store.now_ms + 2 * HOUR_MS,
    )
    footprint = ask(cluster, child).view.footprint
    assert set(footprint.reads) == {
        keyspace.SEAL_STATE, digest_key(child), digest_key(parent), keyspace.policy("app"),
    }  # fmt: skip
    assert footprint.before_ms == cluster.store.now_ms + HOUR_MS


def test_the_draft_has_the_accessor_as_soon_as_the_caller_is_known_and_not_before(
    cluster: FakeCluster,
) -> None:
    guard, token = Guard(cluster.source), cluster.add_token(policies=["default"])
    known = cluster.store.view(draft())
    with pytest.raises(PermissionDenied):
        guard.require(known, cast("Inbound", FakeInbound(token)), "read", "secret/a")
    assert known.draft is not None
    assert len(known.draft.accessor) == 24
    unknown = cluster.store.view(draft())
    with pytest.raises(Unauthenticated):
        guard.require(unknown, cast("Inbound", FakeInbound(token_format.new_token())), "read", "secret/a")
    assert unknown.draft is not None
    assert unknown.draft.accessor == ""


@pytest.mark.parametrize(
    "token", ["", "sb.", "root", "sb." + "a" * 42, "sb." + "a" * 44, "sb." + "a" * 42 + "\n"]
)
def test_what_has_no_token_form_is_unauthenticated(cluster: FakeCluster, token: str) -> None:
    with pytest.raises(Unauthenticated):
        ask(cluster, token)


def test_an_expired_token_is_unauthenticated_at_the_very_millisecond(cluster: FakeCluster) -> None:
    cluster.add_policy("app", secret__a="read")
    token = cluster.add_token(policies=["app"], expires_ms=cluster.store.now_ms + 1)
    ask(cluster, token)
    cluster.store.now_ms += 1
    with pytest.raises(Unauthenticated):
        ask(cluster, token)


def test_a_revoked_or_expired_ancestor_kills_the_child(cluster: FakeCluster) -> None:
    now = cluster.store.now_ms
    grandparent = cluster.add_token(policies=["root"], expires_ms=now + HOUR_MS)
    parent = cluster.add_token(policies=["root"], ancestors=[token_format.digest(grandparent)])
    line = [token_format.digest(parent), token_format.digest(grandparent)]
    child = cluster.add_token(policies=["root"], ancestors=line)
    ask(cluster, child)
    cluster.store.now_ms += HOUR_MS
    with pytest.raises(Unauthenticated):
        ask(cluster, child)
    cluster.store.now_ms = now
    cluster.drop(grandparent)
    for token in (child, parent):
        with pytest.raises(Unauthenticated):
            ask(cluster, token)


def test_a_forged_token_record_is_logged_and_unauthenticated(cluster: FakeCluster) -> None:
    token = token_format.new_token()
    stolen = cluster.store.value(digest_key(cluster.root))
    cluster.store.seed(digest_key(token), stolen)  # the root token's own record, copied to another digest
    with capture_logs() as logs, pytest.raises(Unauthenticated):
        ask(cluster, token)
    assert [entry["event"] for entry in logs] == ["a forged record grants nothing"]


def test_a_forged_or_missing_policy_refuses_the_token_that_names_it(cluster: FakeCluster) -> None:
    cluster.add_policy("app", secret__a="read")
    cluster.add_policy("wide", secret__a="read write")
    token = cluster.add_token(policies=["app"])
    ask(cluster, token)
    cluster.store.seed(keyspace.policy("app"), cluster.store.value(keyspace.policy("wide")))
    with pytest.raises(PermissionDenied, match="does not exist"):
        ask(cluster, token)
    cluster.store.seed(keyspace.policy("app"), None)
    with pytest.raises(PermissionDenied, match="does not exist"):
        ask(cluster, token)


def test_a_policy_made_anew_in_other_letters_does_not_stand_in_for_the_one_named(
    cluster: FakeCluster,
) -> None:
    token = cluster.add_token(policies=["App"])
    cluster.add_policy("app", secret__a="read")
    with pytest.raises(PermissionDenied, match="does not exist"):
        ask(cluster, token)


def test_a_policy_change_decides_the_very_next_request(cluster: FakeCluster) -> None:
    cluster.add_policy("app", secret__a="read")
    token = cluster.add_token(policies=["app"])
    guard, inbound = Guard(cluster.source), cast("Inbound", FakeInbound(token))
    cluster.store.run(lambda view: guard.require(view, inbound, "read", "secret/a"))
    cluster.add_policy("app", secret__a="write")
    with pytest.raises(PermissionDenied):
        cluster.store.run(lambda view: guard.require(view, inbound, "read", "secret/a"))


@pytest.mark.parametrize("state", [b"sealed", b"sealed:3", b"", b"nonsense"])
def test_any_state_but_unsealed_is_sealed_for_everybody(cluster: FakeCluster, state: bytes) -> None:
    cluster.store.seed(keyspace.SEAL_STATE, state)
    for token in (cluster.root, ""):
        with pytest.raises(Sealed):
            ask(cluster, token)


def test_without_record_keys_everything_is_sealed(cluster: FakeCluster) -> None:
    cluster.source.record_keys = None
    with pytest.raises(Sealed):
        ask(cluster, cluster.root)


def test_a_cluster_that_was_never_initialized_says_so(cluster: FakeCluster) -> None:
    cluster.store.seed(keyspace.SEAL_STATE, None)
    cluster.source.record_keys = None
    with pytest.raises(NotInitialized):
        ask(cluster, cluster.root)


def test_the_default_policy_grants_the_caller_itself_and_nothing_else(cluster: FakeCluster) -> None:
    token = cluster.add_token(policies=["default"])
    for capability in ("read", "write", "delete"):
        ask(cluster, token, capability, "auth/tokens/self")
    for capability, path in (
        ("sudo", "auth/tokens/self"),
        ("read", "auth/tokens/other"),
        ("read", "secret/a"),
    ):
        with pytest.raises(PermissionDenied):
            ask(cluster, token, capability, path)


def test_no_token_shows_in_a_caller(cluster: FakeCluster) -> None:
    assert cluster.root not in repr(ask(cluster, cluster.root).value)


def test_a_policy_is_compiled_once_whoever_has_it_and_what_is_kept_is_bounded_by_its_size(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongbox.access.guard.MAX_COMPILED_NODES", 15)
    for name in "abcd":
        cluster.put_policy(name, {f"secret/{name}{number}": "read" for number in range(4)})  # 6 nodes
    one = Guard(cluster.source)

    def look(*names: str) -> None:
        inbound = cast("Inbound", FakeInbound(cluster.add_token(policies=names)))
        cluster.store.run(lambda view: one.require(view, inbound, "read", f"secret/{names[0]}1"), draft())

    look("a", "b")
    first = list(one._compiled.values())
    look("b", "a")
    look("a")
    assert {policy.name for policy in one._compiled.values()} == {"a", "b"}
    assert set(first) == set(one._compiled.values())
    look("c", "d")
    assert [policy.name for policy in one._compiled.values()] == ["c", "d"]
    assert one._nodes == sum(policy.nodes for policy in one._compiled.values()) == 12


def test_policies_that_are_too_large_together_are_refused_and_hold_up_nobody(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongbox.access.guard.MAX_NODES", 11)
    for name in "ab":
        cluster.put_policy(name, {f"secret/{name}{number}": "read" for number in range(4)})
    ask(cluster, cluster.add_token(policies=["a"]), "read", "secret/a1")
    with pytest.raises(PermissionDenied, match="too large"):
        ask(cluster, cluster.add_token(policies=["a", "b"]), "read", "secret/a1")


def test_policies_that_are_too_large_together_cost_no_more_than_those_that_are_not(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongbox.access.guard.MAX_NODES", 11)
    monkeypatch.setattr("strongbox.access.guard.MAX_COMPILED_NODES", 44)
    names = [f"p{number:02d}" for number in range(64)]
    for name in names:
        cluster.put_policy(name, {f"secret/{name}{number}": "read" for number in range(4)})  # 6 nodes
    made: list[str] = []

    def compiling(name: str, rules: Sequence[Rule]) -> CompiledPolicy:
        made.append(name)
        return CompiledPolicy(name, rules)

    monkeypatch.setattr("strongbox.access.guard.CompiledPolicy", compiling)
    one, inbound = Guard(cluster.source), cast("Inbound", FakeInbound(cluster.add_token(policies=names)))
    for _ in range(3):
        with pytest.raises(PermissionDenied, match="too large"):
            one.authenticate(cluster.store.view(draft()), inbound)
    assert made == names[:2]  # and they are kept


def test_a_caller_is_worth_nothing_beyond_the_decision_that_proves_him(cluster: FakeCluster) -> None:
    outcome = ask(cluster, cluster.root)
    caller = cast("Caller", outcome.value)
    outcome.view.close()
    uses: list[Callable[[], object]] = [
        lambda: caller.allows("read", "secret/a"),
        lambda: caller.require("read", "secret/a"),
        lambda: caller.decide("read", "secret/a"),
        lambda: caller.accessor,
        lambda: caller.policies,
        lambda: caller.record,
        lambda: caller.token_key,
        lambda: caller.digest,
        lambda: caller.expires_at_ms,
        lambda: caller.is_root,
        lambda: caller.denying,
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="beyond"):
            use()
