"""Why a policy is refused when it is written, although each of its rules is well formed. Pure.

* A rule that can never match any path there is, and one that can never win (`dead_rules`).
* A pattern of more than 32 segments, and rules that need more than 2,048 nodes together: they are compiled in
  every service (strongbox.access.policy_engine), by the event loop.
* No rule at all: so reads a request whose field was misspelt. A policy that is to allow nothing says so by a
  rule with `deny`.
"""

from __future__ import annotations

from collections.abc import Sequence

from strongbox.access.dead_rules import require_may_win
from strongbox.access.policy_engine import Rule, node_count
from strongbox.access.policy_paths import why_never
from strongbox.errors import InvalidInput

MAX_SEGMENTS = 32
MAX_NODES = 2048


def require_sensible(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules. Raises `InvalidInput`, naming the index of the one that makes no sense, and why."""
    if not rules:
        raise InvalidInput(
            "a policy needs at least one rule; one that is to allow nothing says so by a rule with deny",
            index="0",
        )
    for index, rule in enumerate(rules):
        reason = why_never(rule.path) or _why_too_deep(rule.path)
        if reason:
            raise InvalidInput(f"rule {index}: {reason}", index=str(index))
    if node_count(rules) > MAX_NODES:
        raise InvalidInput(f"the rules of a policy have at most {MAX_NODES} different segments", index="0")
    require_may_win(rules)
    return tuple(rules)


def _why_too_deep(pattern: str) -> str:
    deep = pattern.count("/") >= MAX_SEGMENTS
    return f"a pattern has at most {MAX_SEGMENTS} segments" if deep else ""
