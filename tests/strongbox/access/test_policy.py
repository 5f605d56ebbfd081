"""Patterns, precedence and decisions; the trie against a naive reference."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongbox.access.policy import (
    CAPABILITIES,
    NOTHING,
    Decision,
    Policies,
    Rule,
    parse_rules,
    precedence,
)
from strongbox.errors import InvalidInput


def compiled(**policies: dict[str, str]) -> Policies:
    """Policies from {name: {pattern: "read write"}}."""
    return Policies(
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
    assert not Policies({}, is_root=True).decide("deny", "x").allowed


def test_root_may_everything() -> None:
    assert Policies({}, is_root=True).decide("sudo", "sys/seal").allowed


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
    _pattern, st.lists(st.sampled_from(sorted(CAPABILITIES)), min_size=1, max_size=3, unique=True), max_size=6
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
    assert Policies(rules).decide(capability, path).allowed is naive_decide(policies, capability, path)


@given(_pattern, _pattern)
def test_precedence_is_a_total_order_on_distinct_patterns(one: str, other: str) -> None:
    assert (precedence(one) == precedence(other)) is (one == other)


def test_a_rule_keeps_its_capabilities_once_each() -> None:
    assert parse_rules([("a", ["write", "read", "read"])]) == (Rule("a", ("read", "write")),)
