"""Patterns, precedence and decisions; the trie against a naive reference."""

from __future__ import annotations

import random
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongbox.access.policy_engine import (
    CAPABILITIES,
    NOTHING,
    Decision,
    Policies,
    Rule,
    parse_rules,
    precedence,
)
from strongbox.access.policy_validation import require_sensible
from strongbox.errors import InvalidInput


def compiled(**policies: dict[str, str]) -> Policies:
    """Policies from {name: {pattern: "read write"}}."""
    return Policies.of(
        {name: parse_rules((p, c.split()) for p, c in rules.items()) for name, rules in policies.items()}
    )


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("secret/app", "secret/app", True),
        ("secret/app", "secret/app/", False),
        ("secret/app", "secret/App", False),
        ("secret/app/", "secret/app/", True),
        ("secret/app/", "secret/app", False),
        ("secret/app/*", "secret/app/db", True),
        ("secret/app/*", "secret/app/db/password", True),
        ("secret/app/*", "secret/app/", True),
        ("secret/app/*", "secret/app", False),
        ("secret/app/*", "secret/apple", False),
        ("secret/app*", "secret/apple/pie", True),
        ("secret/app*", "secret/app", True),
        ("secret/app/db*", "secret/app/db", True),
        ("secret/app/db*", "secret/app/db_password", True),
        ("secret/app/db*", "secret/app/db/x/y", True),
        ("secret/app/db*", "secret/app/d", False),
        ("secret/+/db", "secret/app/db", True),
        ("secret/+/db", "secret/app/x/db", False),
        ("secret/+/db", "secret/db", False),
        ("secret/+", "secret/", False),
        ("secret/+/", "secret/app/", True),
        ("secret/+", "secret/app/", False),
        ("+/app", "secret/app", True),
        ("secret/+/+/x", "secret/a/b/x", True),
        ("secret/+/*", "secret/a/", True),
        ("secret/+/*", "secret/a", False),
        ("*", "anything/at/all", True),
        ("secret/a", "secret/+", False),
        ("secret/+", "secret/*", True),
        ("secret/ab", "secret/a*", False),
    ],
)
def test_a_pattern_matches_exactly_what_it_says(pattern: str, path: str, matches: bool) -> None:
    assert compiled(p={pattern: "read"}).decide("read", path).allowed is matches


@pytest.mark.parametrize(
    ("winner", "loser", "path"),
    [
        ("secret/app/db", "secret/app/*", "secret/app/db"),
        ("secret/app/db", "secret/+/db", "secret/app/db"),
        ("secret/app/*", "secret/*", "secret/app/db"),
        ("secret/app/+", "secret/app/*", "secret/app/db"),
        ("secret/+/db", "secret/+/*", "secret/app/db"),
        ("secret/app*", "secret/+/db", "secret/app/db"),
        ("secret/+/db/+", "secret/+/+/x", "secret/a/db/x"),
        ("secret/+/db*", "secret/+/d*", "secret/a/db1"),
        ("secret/+/+/cc", "secret/+/+/+", "secret/a/b/cc"),
        ("a/+/y/+", "a/+/+/z", "a/x/y/z"),
    ],
)
def test_the_more_specific_pattern_wins_whatever_the_order(winner: str, loser: str, path: str) -> None:
    for order in ((winner, loser), (loser, winner)):
        for allowed, denied in (order, order[::-1]):
            both = compiled(one={allowed: "read"}, two={denied: "deny"})
            assert both.decide("read", path).pattern == winner
            assert both.decide("read", path).allowed is (allowed == winner)


def test_rules_of_equal_pattern_are_joined_across_policies() -> None:
    both = compiled(one={"secret/a": "read"}, two={"secret/a": "write"})
    assert both.decide("read", "secret/a") == Decision(True, "secret/a", ("one",))
    assert both.decide("write", "secret/a") == Decision(True, "secret/a", ("two",))
    assert both.decide("delete", "secret/a") == Decision(False, "secret/a", ("one", "two"))


def test_deny_in_the_winning_pattern_refuses_what_another_policy_grants_there() -> None:
    both = compiled(one={"secret/a": "read write sudo"}, two={"secret/a": "deny"})
    assert both.decide("read", "secret/a") == Decision(False, "secret/a", ("two",))


def test_deny_in_a_pattern_that_does_not_win_has_no_say() -> None:
    assert compiled(p={"secret/*": "deny", "secret/a": "read"}).decide("read", "secret/a").allowed


def test_the_winning_pattern_alone_decides_and_the_loser_adds_nothing() -> None:
    assert not compiled(p={"secret/*": "read write", "secret/a": "read"}).decide("write", "secret/a").allowed


def test_nothing_matching_means_no_and_deny_is_never_a_capability() -> None:
    assert compiled(p={"secret/a": "read"}).decide("read", "secret/b") == NOTHING
    assert not compiled(p={"*": "deny"}).decide("deny", "x").allowed
    assert not Policies.of({}, is_root=True).decide("deny", "x").allowed


def test_root_may_everything() -> None:
    assert Policies.of({}, is_root=True).decide("sudo", "sys/seal").allowed


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "//", "/secret/a", "secret//a", "secret/../a", "secret/./a", "a//*", "a/%2e", "a/\0", "a/\n",
     "a*b", "*a", "a/*/b", "a/**", "a+", "a/+b/c", "a/b+", "a/+*", "++", "e\u0301", "x" * 513],
)  # fmt: skip
def test_a_bad_pattern_is_refused_with_its_index(pattern: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_rules([("secret/fine", ["read"]), (pattern, ["read"])])
    assert refused.value.metadata == {"index": "1"}
    assert "rule 1: " in refused.value.message


@pytest.mark.parametrize("capabilities", [[], ["reed"], ["read", "READ"], ["*"], [""]])
def test_unknown_or_missing_capabilities_are_refused(capabilities: list[str]) -> None:
    with pytest.raises(InvalidInput):
        parse_rules([("secret/a", capabilities)])


@pytest.mark.parametrize(
    "pattern",
    ["app/*", "secrets/app", "secret", "Secret/app", "/secret", "sec/*", "sys", "auth", "sys/", "auth/",
     "audit/x", "audit/*", "x*", "dynamic-postgre/ro", "lease/secret/a"],
)  # fmt: skip
def test_what_would_never_match_is_refused_with_index_and_reason(pattern: str) -> None:
    rules = (Rule("secret/fine", ("read",)), Rule(pattern, ("read",)))
    with pytest.raises(InvalidInput, match=r"rule 1: .+") as refused:
        require_sensible(rules)
    assert refused.value.metadata == {"index": "1"}


@pytest.mark.parametrize(
    "pattern",
    ["*", "+/app", "+", "secret/*", "secret/", "secret/+", "s*", "se*", "secret*", "sys/policies/", "audit",
     "audit*", "leases/secret/a", "leases/", "auth/tokens", "auth/users/*", "dynamic-postgres/+", "a*"],
)  # fmt: skip
def test_what_may_match_is_not_refused(pattern: str) -> None:
    assert require_sensible((Rule(pattern, ("read",)),))


def test_what_is_ambiguous_is_refused() -> None:
    with pytest.raises(InvalidInput, match="rule 1: an earlier rule"):
        parse_rules([("secret/a", ["read"]), ("secret/a", ["write"])])


def test_deny_beside_other_capabilities_refuses_them_all() -> None:
    policy = compiled(p={"secret/a": "deny read write"})
    assert not any(policy.decide(capability, "secret/a").allowed for capability in CAPABILITIES)


def test_256_segments_neither_recurse_nor_explode() -> None:
    path = "/".join("a" * 256)
    many = {"/".join(["+"] * n + ["a"] * (256 - n)): "read" for n in range(256)}
    assert compiled(p=many).decide("read", path).pattern == path


# against a naive reference -----------------------------------------------------------------------------

_segment = st.sampled_from(["a", "b", "ab", "abc"])
_path = st.builds(
    lambda segments, slash: "/".join(segments) + slash,
    st.lists(_segment, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)
_pattern = st.builds(
    lambda segments, end: "/".join(segments) + end,
    st.lists(st.one_of(_segment, st.just("+")), min_size=1, max_size=4),
    st.sampled_from(["", "*", "/", "/*"]),
).filter(lambda pattern: not pattern.endswith("+*"))
_rules = st.dictionaries(
    _pattern,
    st.one_of(
        st.just(["deny"]),
        st.lists(st.sampled_from(sorted(CAPABILITIES - {"deny"})), min_size=1, max_size=3, unique=True),
    ),
    max_size=6,
)


def naive_match(pattern: str, path: str) -> bool:
    """Segment by segment from the start; what stands before a final `*` is a prefix of the rest."""
    if pattern.startswith("+"):
        head, slash, rest = path.partition("/")
        if not head:
            return False
        if pattern == "+":
            return not slash
        return bool(slash) and naive_match(pattern[2:], rest)
    head, slash, rest = pattern.partition("/")
    if not slash:
        return path.startswith(head[:-1]) if head.endswith("*") else path == head
    return path.startswith(head + "/") and naive_match(rest, path[len(head) + 1 :])


def naive_decide(policies: dict[str, dict[str, list[str]]], capability: str, path: str) -> bool:
    """All matching patterns, sorted by the rules as api.md words them."""
    patterns = {p for rules in policies.values() for p in rules if naive_match(p, path)}
    if capability == "deny" or not patterns:
        return False
    wildcards = {p: [i for i, c in enumerate(p) if c in "+*"] for p in patterns}
    winner = max(
        patterns,
        key=lambda p: [*(wildcards[p] or [10**9])[:1], not p.endswith("*"), -p.count("+"), len(p), p],
    )
    granted = {c for rules in policies.values() for c in rules.get(winner, [])}
    return capability in granted and "deny" not in granted


@settings(max_examples=1000, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["p", "q", "r"]), _rules), st.sampled_from(sorted(CAPABILITIES)), _path
)
def test_the_trie_decides_as_the_naive_reference_does(
    policies: dict[str, dict[str, list[str]]], capability: str, path: str
) -> None:
    rules = {name: parse_rules(listed.items()) for name, listed in policies.items()}
    assert Policies.of(rules).decide(capability, path).allowed is naive_decide(policies, capability, path)


ALPHABET = ("a", "b", "ab", "abc", "a+", "é")


def random_case(chance: random.Random) -> tuple[dict[str, dict[str, list[str]]], str, str]:
    """Policies, a capability and a path; small words, so that patterns meet paths often."""

    def pattern() -> str:
        segments = [chance.choice((*ALPHABET[:4], "+")) for _ in range(chance.randint(1, 5))]
        text = "/".join(segments) + chance.choice(("", "", "*", "/", "/*"))
        return text if not text.endswith("+*") else text[:-1]

    def rules() -> dict[str, list[str]]:
        some = [pattern() for _ in range(chance.randint(0, 8))]
        words = sorted(CAPABILITIES - {"deny"})
        return {p: ["deny"] if chance.random() < 0.2 else chance.sample(words, 2) for p in some}

    policies = {name: rules() for name in "pqr"[: chance.randint(1, 3)]}
    path = "/".join(chance.choice(ALPHABET) for _ in range(chance.randint(1, 5))) + chance.choice(("", "/"))
    return policies, chance.choice(sorted(CAPABILITIES)), path


def compare_with_the_reference(cases: int, seed: int) -> tuple[int, int]:
    """How many were allowed and how many met a `deny`; raises AssertionError at the first difference."""
    chance, allowed, denied = random.Random(seed), 0, 0
    for number in range(cases):
        policies, capability, path = random_case(chance)
        rules = {name: parse_rules(listed.items()) for name, listed in policies.items()}
        compiled_ = Policies.of(rules)
        told = compiled_.decide(capability, path).allowed
        assert told is naive_decide(policies, capability, path), (seed, number, policies, capability, path)
        allowed, denied = allowed + told, denied + compiled_.denies(path)
    return allowed, denied


def test_ten_thousand_random_policies_decide_as_the_reference_does() -> None:
    allowed, denied = compare_with_the_reference(10_000, seed=1)
    assert min(allowed, denied) > 400  # a run that matched nothing would prove nothing


@pytest.mark.heavy
def test_a_hundred_thousand_random_policies_decide_as_the_reference_does() -> None:
    allowed, denied = compare_with_the_reference(100_000, seed=random.SystemRandom().randrange(2**32))
    assert min(allowed, denied) > 4000


def lines_of_a_decision(rules: int) -> int:
    """How many lines of Python a decision runs, with so many rules of every kind beside those that match."""
    some = {f"secret/app{n}/{kind}": "read" for n in range(rules // 4) for kind in ("x", "+/y", "pre*", "*")}
    some |= {f"secret/pre{n}*": "read" for n in range(rules // 4)}
    policy = compiled(p={**some, "secret/+/db": "read", "secret/app1/*": "write", "secret/app1/db": "list"})
    lines, before = 0, sys.gettrace()

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    sys.settrace(count)
    try:
        assert policy.decide("list", "secret/app1/db").allowed
    finally:
        sys.settrace(before)
    return lines


def test_what_a_decision_costs_does_not_follow_the_number_of_rules() -> None:
    few, many = lines_of_a_decision(16), lines_of_a_decision(16_000)
    assert 0 < many < 2 * few, f"{few} lines among 16 rules, {many} among 16,000"


@given(_pattern, _pattern)
def test_precedence_is_a_total_order_on_distinct_patterns(one: str, other: str) -> None:
    assert (precedence(one) == precedence(other)) is (one == other)


def test_a_rule_keeps_its_capabilities_once_each() -> None:
    assert parse_rules([("a", ["write", "read", "read"])]) == (Rule("a", ("read", "write")),)
