"""Rules that never count: another rule of the same policy matches all that they match, and ranks above them.

The worst case is a `deny` that denies nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from strongbox.access.pattern_overlap import covers
from strongbox.access.policy_engine import Rule, precedence
from strongbox.errors import InvalidInput


def require_may_win(rules: Sequence[Rule]) -> None:
    """Raises `InvalidInput`, naming the index of the rule that never counts, and why."""
    ranks = [precedence(rule.path) for rule in rules]
    for index, rule in enumerate(rules):
        for place, other in enumerate(rules):
            if ranks[place] > ranks[index] and covers(other.path, rule.path):
                raise InvalidInput(
                    f"rule {index}: it never counts: rule {place} ({other.path}) matches all that it "
                    "matches, and stands before it",
                    index=str(index),
                )
