"""Whether a token that has only some of another's policies could do more than that other. Pure.

Rules of one policy narrow those of another: with `secret/app/keys/*` (list) in one and `secret/*` (read) in
the other, a token with both policies cannot read the keys, and a token with only the second can.

A dropped rule is compared with the kept rules that overlap it and do not rank above it, the strongest first:
none may grant more than is granted where the dropped rule wins. Once a kept rule matches all that the dropped
one matches, those ranked below it are not looked at: they never win there. The answer may be yes for policies
that give nothing more, as when a third rule ranks above both; it is never no for policies that give more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from strongbox.access.pattern_overlap import covers, overlap
from strongbox.access.policy_engine import CompiledPolicy, Precedence

MAX_COMPARED = 16_384  # pairs of rules: some 30 ms of the event loop


class _Joined(NamedTuple):
    """What the rules of one pattern grant together."""

    rank: Precedence
    granted: frozenset[str]

    @property
    def head(self) -> str:
        """What stands before the first wildcard."""
        return self.rank.text[: self.rank.first_wildcard]


def may_widen(kept: Sequence[CompiledPolicy], dropped: Sequence[CompiledPolicy]) -> bool:
    """Whether `kept` alone may allow what `kept` and `dropped` together do not.

    Yes as well when finding out would take more than `MAX_COMPARED` comparisons.
    """
    left, whole = _joined(kept), _joined((*kept, *dropped))
    heads: dict[str, list[_Joined]] = defaultdict(list)
    for rule in left.values():
        heads[rule.head].append(rule)
    lengths, compared = {len(head) for head in heads}, 0
    for pattern in _joined(dropped):
        rule = whole[pattern]
        # A loser that overlaps the rule has its first wildcard no later, so the rule's head begins with its.
        starts = {rule.head[:length] for length in lengths}
        losers = [loser for start in starts for loser in heads.get(start, ()) if loser.rank <= rule.rank]
        compared += len(losers)
        if compared > MAX_COMPARED or _gives_more(losers, rule):
            return True
    return False


def _gives_more(losers: list[_Joined], rule: _Joined) -> bool:
    """Whether one of the losers grants more than `rule` on a path where it ranks highest of them."""
    for loser in sorted(losers, key=lambda one: one.rank, reverse=True):
        if overlap(loser.rank.text, rule.rank.text) and not loser.granted <= rule.granted:
            return True
        if covers(loser.rank.text, rule.rank.text):
            return False
    return False


def _joined(policies: Iterable[CompiledPolicy]) -> dict[str, _Joined]:
    """What is granted, by pattern; a `deny` leaves nothing."""
    named: dict[str, set[str]] = defaultdict(set)
    ranks: dict[str, Precedence] = {}
    for policy in policies:
        for rank, rule in policy.rules:
            ranks[rule.path] = rank
            named[rule.path].update(rule.capabilities)
    return {
        path: _Joined(rank, frozenset() if "deny" in named[path] else frozenset(named[path]))
        for path, rank in ranks.items()
    }
