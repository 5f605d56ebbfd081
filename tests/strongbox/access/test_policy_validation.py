"""What a policy is refused for when it is written: rules that never match, never count, or are too much."""

from __future__ import annotations

import re

import pytest

from strongbox.access.pattern_overlap import covers, overlap
from strongbox.access.policy_engine import CompiledPolicy, Policies, Rule, node_count
from strongbox.access.policy_paths import PATHS, why_never
from strongbox.access.policy_validation import MAX_NODES, MAX_SEGMENTS, require_sensible
from strongbox.errors import InvalidInput
from tests.support.surface import public_rpcs


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("auth/token/create", "auth/tokens"), ("auth/token/*", "auth/tokens"),
     ("auth/userpass/login/*", "auth/users"),
     ("auth/approle/*", "auth/approles"), ("sys/policy/*", "sys/policies/<name>"),
     ("sys/leases/*", "leases/"), ("sys/policies/acl/*", "sys/policies/<name>"),
     ("sys/mounts/*", "sys/seal"), ("sys/audit", "audit"),
     ("dynamic-postgres/a/b/c", "dynamic-postgres/+"), ("leases/x/*", "leases/secret")],
)  # fmt: skip
def test_a_rule_on_no_path_there_is_is_refused_and_told_which_there_are(pattern: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(told)):
        require_sensible((Rule(pattern, ("read",)),))


def test_the_table_of_policy_paths_is_what_the_protos_say() -> None:
    named = {str(rpc.rule.policy_path) for rpc in public_rpcs() if rpc.rule.token_required}
    for path in named:
        shape = re.sub(r"\{(path|prefix|path of the lease)\}/?", "*", path)
        assert not why_never(re.sub(r"\{\w+\}", "+", shape)), path
    for path in PATHS:
        family = path.split("/")[0]
        assert any(one.split("/")[0] == family for one in named), path


@pytest.mark.parametrize(
    ("winner", "never"),
    [("secret/foo/*", "secret/foo/+/private/*"), ("secret/+/a/*", "secret/+/a/+/b/*")],
)
def test_a_deny_that_can_never_win_is_refused_with_both_rules_named(winner: str, never: str) -> None:
    rules = (Rule(winner, ("read",)), Rule(never, ("deny",)))
    with pytest.raises(InvalidInput, match="rule 1: it never counts: rule 0"):
        require_sensible(rules)
    assert Policies.of({"p": rules}).decide("read", never.replace("+", "x").replace("*", "y")).allowed


@pytest.mark.parametrize(
    "patterns",
    [("secret/app/*", "secret/app/keys/*"), ("secret/+/shared", "secret/app/*"), ("secret/a*", "secret/a/+")],
)
def test_a_rule_that_may_win_somewhere_is_not_refused(patterns: tuple[str, ...]) -> None:
    assert require_sensible(tuple(Rule(pattern, ("read",)) for pattern in patterns))


def test_a_policy_without_a_rule_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one rule"):
        require_sensible(())


def test_a_pattern_has_so_many_segments_and_a_policy_so_many_nodes() -> None:
    deep = "secret/" + "/".join("a" * (MAX_SEGMENTS - 1))
    assert require_sensible((Rule(deep, ("read",)),))
    with pytest.raises(InvalidInput, match="segments"):
        require_sensible((Rule(deep + "/a", ("read",)),))
    many = tuple(Rule(f"secret/{number}/" + "/".join("a" * 20), ("read",)) for number in range(100))
    assert node_count(many) > MAX_NODES
    with pytest.raises(InvalidInput, match="at most"):
        require_sensible(many)


def test_the_nodes_that_are_counted_are_the_nodes_that_are_made() -> None:
    rules = [
        Rule(path, ("read",)) for path in ("*", "secret/*", "secret/a*", "secret/+/b", "secret/a/b", "+")
    ]
    assert CompiledPolicy("p", rules).nodes == node_count(rules)


def test_patterns_cover_and_overlap_as_they_match() -> None:
    assert covers("*", "secret/a")
    assert covers("secret/+", "secret/a")
    assert not covers("secret/+", "secret/a*")
    assert not covers("secret/a*", "secret/+")
    assert not covers("secret/+", "secret/")
    assert overlap("secret/+", "secret/a*")
    assert overlap("secret/a*", "secret/ab*")
    assert not overlap("secret/a*", "secret/b")
    assert not overlap("secret/+", "secret/")
    assert overlap("secret/*", "secret/")
