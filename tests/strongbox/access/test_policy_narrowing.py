"""Some of a token's policies without the others never allow what all of them do not."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from strongbox.access import policy_narrowing
from strongbox.access.policy_engine import CAPABILITIES, CompiledPolicy, Policies, Rule
from strongbox.access.policy_narrowing import may_widen
from strongbox.access.policy_validation import MAX_NODES

WORDS = sorted(CAPABILITIES - {"deny"})


def policy(name: str, **rules: str) -> CompiledPolicy:
    """With rules {pattern: "read write"}."""
    return CompiledPolicy(name, [Rule(path, tuple(said.split())) for path, said in rules.items()])


@pytest.mark.parametrize(
    ("kept", "dropped", "widens"),
    [
        ({"secret/*": "read"}, {"secret/keys/*": "list"}, True),
        ({"secret/*": "read"}, {"secret/keys/*": "deny"}, True),
        ({"secret/*": "read"}, {"secret/*": "deny"}, True),
        ({"secret/*": "read"}, {"secret/+/keys": "write"}, True),
        ({"secret/+/keys": "read"}, {"secret/app/*": "write"}, True),
        ({"secret/*": "read"}, {"secret/*": "write"}, False),
        ({"secret/*": "read"}, {"secret/keys/*": "read list"}, False),
        ({"secret/keys/*": "read"}, {"secret/*": "list"}, False),
        ({"secret/a/*": "read"}, {"secret/b/*": "deny"}, False),
        ({"secret/*": "deny"}, {"secret/keys/*": "read"}, False),
        ({"secret/*": "read", "secret/keys/*": "list"}, {"secret/keys/a": "list"}, False),
        ({"secret/*": "read", "secret/keys/*": "list"}, {"secret/keys/a": "read"}, True),
        ({"secret/keys/*": "read"}, {"secret/keys/*": "write", "secret/keys/a": "read"}, False),
    ],
)
def test_a_dropped_rule_counts_where_it_grants_less_than_what_it_stands_before(
    kept: dict[str, str], dropped: dict[str, str], widens: bool
) -> None:
    assert may_widen([policy("kept", **kept)], [policy("dropped", **dropped)]) is widens


def some_policies(chance: random.Random) -> list[CompiledPolicy]:
    """Up to four, of few words: their patterns meet often."""

    def pattern() -> str:
        segments = [chance.choice(("a", "b", "ab", "+")) for _ in range(chance.randint(1, 3))]
        text = "/".join(segments) + chance.choice(("", "", "*", "/", "/*"))
        return text if not text.endswith("+*") else text[:-1]

    def rules() -> dict[str, str]:
        said = ("deny" if chance.random() < 0.1 else " ".join(chance.sample(WORDS, 3)) for _ in range(3))
        return {pattern(): words for words in said}

    return [policy(f"p{number}", **rules()) for number in range(chance.randint(1, 4))]


def gained(kept: Sequence[CompiledPolicy], whole: Sequence[CompiledPolicy]) -> list[tuple[str, str]]:
    """What `kept` allows and `whole` does not, on all paths of up to three segments of a few words."""
    child, parent = Policies(kept), Policies(whole)
    return [
        (word, path)
        for path in PATHS
        for word in WORDS
        if child.decide(word, path).allowed and not parent.decide(word, path).allowed
    ]


SEGMENTS = ("a", "b", "ab", "c")
_ONE = list(SEGMENTS)
_TWO = [f"{start}/{last}" for start in _ONE for last in SEGMENTS]
_THREE = [f"{start}/{last}" for start in _TWO for last in ("a", "c", "")]
PATHS = [*_ONE, *(f"{path}/" for path in _ONE), *_TWO, *_THREE]


def test_of_random_policies_no_subset_that_may_be_given_allows_more_than_all() -> None:
    chance, given, refused, rightly = random.Random(1), 0, 0, 0
    for number in range(600):
        whole = some_policies(chance)
        kept = [one for one in whole if chance.random() < 0.6]
        more = gained(kept, whole)
        if may_widen(kept, [one for one in whole if one not in kept]):
            refused, rightly = refused + 1, rightly + bool(more)
        else:
            given += 1
            assert not more, (number, more)
    # Both answers occur, and a yes is seldom caution only.
    assert min(given, refused) > 100
    assert rightly > refused // 2


def test_more_comparisons_than_are_bearable_are_a_yes() -> None:
    kept = [policy("kept", **{f"secret/+/{number}/*": "read" for number in range(200)})]
    dropped = [policy("dropped", **{f"secret/+/x{number}/*": "read" for number in range(200)})]
    assert policy_narrowing.MAX_COMPARED < 200 * 200
    assert may_widen(kept, dropped)
    apart = [policy("apart", **{f"secret/{number}/x": "read" for number in range(MAX_NODES)})]
    assert not may_widen([policy("kept", **{f"secret/{number}/*": "read" for number in range(200)})], apart)
