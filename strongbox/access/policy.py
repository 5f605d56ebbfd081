"""Policies: what a pattern matches, which pattern wins, what it then allows. Pure; no I/O, no time.

Rules:
* A pattern is a canonical path (strongbox.paths) that may end in `/` (a directory, for listings), may have
  `+` as a whole segment: it matches one segment that is not empty; and one `*` at its very end, even
  mid-segment: it matches any suffix, the empty one and further segments included. Nothing else is special.
* Of all patterns that match, one wins: first wildcard later (none at all is latest); then not ending in `*`;
  then fewer `+`; then longer; then lexically larger (Vault's order).
* Rules of equal pattern are joined, across policies. `deny` in the winning pattern refuses everything. A
  pattern that does not win has no say. Nothing matching means no.
* Refused, with the rule's index and the reason, is what is no pattern, what would never match any path (of
  `app/*` `secret/` was forgotten), and what is ambiguous: one pattern twice in a policy.
* The built-in `root` allows everything; no rule can express it.

Patterns of all policies of a token are compiled into one trie by segment. A decision walks it along the
path: what it costs follows the path's length and the patterns that match so far, not the number of rules.
What a segment may begin with (`app*`) is found by the lengths that occur, each one lookup, however many
such patterns there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from strongbox import paths
from strongbox.errors import InvalidInput, InvalidPath

CAPABILITIES = frozenset({"read", "write", "delete", "list", "metadata", "sudo", "deny"})
WHOLE = "audit"  # the one policy path of a single segment
FAMILIES = frozenset({"secret", "dynamic-postgres", "sys", "auth", "leases", WHOLE})
LISTED = frozenset({"secret", "leases", "dynamic-postgres"})  # with a slash behind, the root of a listing
MAX_PATTERN_BYTES = paths.MAX_PATH_BYTES
_NEVER = 1 << 30  # the place of the first wildcard of a pattern that has none


class Rule(NamedTuple):
    """Capabilities on the paths that a pattern matches."""

    path: str
    capabilities: tuple[str, ...]


class Decision(NamedTuple):
    """What was decided, by which pattern (empty: none matched), from which policies it came."""

    allowed: bool
    pattern: str
    policies: tuple[str, ...]


NOTHING = Decision(False, "", ())


class Precedence(NamedTuple):
    """Greater wins."""

    first_wildcard: int
    is_exact: bool
    fewer_plus: int
    length: int
    text: str


def precedence(pattern: str) -> Precedence:
    """Where a pattern stands among those that match a path."""
    places = [place for place in (_first_plus(pattern), pattern.find("*")) if place >= 0]
    plus = sum(segment == "+" for segment in pattern.split("/"))
    return Precedence(min(places, default=_NEVER), not pattern.endswith("*"), -plus, len(pattern), pattern)


def _first_plus(pattern: str) -> int:
    place = 0
    for segment in pattern.split("/"):
        if segment == "+":
            return place
        place += len(segment) + 1
    return -1


def parse_rules(raw: Iterable[tuple[str, Sequence[str]]]) -> tuple[Rule, ...]:
    """Check (pattern, capabilities) pairs. Raises `InvalidInput`, naming the rule's index and the reason."""
    rules: dict[str, Rule] = {}
    for index, (pattern, capabilities) in enumerate(raw):
        reason = why_bad_pattern(pattern) or _why_bad_capabilities(capabilities)
        if not reason and pattern in rules:
            reason = "an earlier rule has the same path; write one rule with what both should grant"
        if reason:
            raise InvalidInput(f"rule {index}: {reason}", index=str(index))
        rules[pattern] = Rule(pattern, tuple(sorted(set(capabilities))))
    return tuple(rules.values())


def why_bad_pattern(pattern: str) -> str:
    """Why `pattern` is not one; empty when it is."""
    if pattern.startswith("/"):
        return "a pattern has no slash in front"
    body = pattern.removesuffix("*")
    if "*" in body:
        return "a '*' stands only at the end"
    segments = body.split("/")
    if any("+" in segment and segment != "+" for segment in segments) or pattern.endswith("+*"):
        return "a '+' stands only as a whole segment"
    return _why_not_canonical(pattern, body.removesuffix("/"))


def why_never(pattern: str) -> str:
    """Why a sound pattern would never match any policy path of StrongBox; empty when it may."""
    first, slash, rest = pattern.partition("/")
    if first in ("+", "*"):
        return ""
    families = [name for name in FAMILIES if _fits(first, name)]
    if not families:
        return f"no path begins so; paths begin with {', '.join(sorted(FAMILIES))}"
    if families == [WHOLE] and slash:
        return f"'{WHOLE}' is a path by itself: nothing is below it"
    if not slash and not first.endswith("*") and first != WHOLE:
        return f"'{first}' by itself is no path: what is meant stands behind '{first}/'"
    if not rest and slash and first not in LISTED:
        return f"'{first}/' by itself is no path"
    return ""


def require_may_match(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules. Raises `InvalidInput`, naming the index of one that would never match anything."""
    for index, rule in enumerate(rules):
        reason = why_never(rule.path)
        if reason:
            raise InvalidInput(f"rule {index}: {reason}", index=str(index))
    return tuple(rules)


def _fits(segment: str, name: str) -> bool:
    return name.startswith(segment[:-1]) if segment.endswith("*") else segment == name


def _why_not_canonical(pattern: str, body: str) -> str:
    if len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATTERN_BYTES:
        return f"a pattern has at most {MAX_PATTERN_BYTES} bytes"
    if pattern == "*":
        return ""
    try:
        paths.require_canonical(body)
    except InvalidPath as error:
        return error.message
    return ""


def _why_bad_capabilities(capabilities: Sequence[str]) -> str:
    if not capabilities:
        return "a rule names at least one capability"
    if not CAPABILITIES.issuperset(capabilities):
        return f"capabilities are {' '.join(sorted(CAPABILITIES))}"
    return ""


@dataclass(slots=True)
class _Joined:
    """All rules of one pattern."""

    pattern: str
    rank: Precedence
    granted: dict[str, list[str]] = field(default_factory=dict)  # capability → policies

    def decide(self, capability: str) -> Decision:
        if "deny" in self.granted:
            return Decision(False, self.pattern, tuple(self.granted["deny"]))
        if capability in self.granted:
            return Decision(True, self.pattern, tuple(self.granted[capability]))
        named = dict.fromkeys(policy for policies in self.granted.values() for policy in policies)
        return Decision(False, self.pattern, tuple(named))


@dataclass(slots=True)
class _Node:
    """The patterns that share the segments on the way here."""

    literals: dict[str, _Node] = field(default_factory=dict)
    plus: _Node | None = None
    ends: _Joined | None = None
    globs: dict[str, _Joined] = field(default_factory=dict)  # what the last segment begins with → rules
    lengths: list[int] = field(default_factory=list)  # of those beginnings, each once


class Policies:
    """The rules of several policies, compiled. `root` among the names allows everything."""

    def __init__(self, policies: Mapping[str, Sequence[Rule]], *, is_root: bool = False) -> None:
        self.is_root = is_root
        self.denying = frozenset(
            name for name, rules in policies.items() if any("deny" in rule.capabilities for rule in rules)
        )
        self._top = _Node()
        for name, rules in policies.items():
            for rule in rules:
                self._add(name, rule)

    def decide(self, capability: str, path: str) -> Decision:
        """Whether `capability` is allowed on `path`; `deny` itself is never allowed."""
        if capability == "deny":
            return NOTHING
        if self.is_root:
            return Decision(True, "*", ("root",))
        winner = self._winner(path)
        return NOTHING if winner is None else winner.decide(capability)

    def denies(self, path: str) -> bool:
        """Whether the pattern that wins on `path` refuses everything."""
        winner = self._winner(path)
        return winner is not None and "deny" in winner.granted

    def _winner(self, path: str) -> _Joined | None:
        return max(_matching(self._top, path.split("/")), key=lambda joined: joined.rank, default=None)

    def _add(self, policy: str, rule: Rule) -> None:
        joined = self._place(rule.path)
        for capability in rule.capabilities:
            named = joined.granted.setdefault(capability, [])
            if policy not in named:
                named.append(policy)

    def _place(self, pattern: str) -> _Joined:
        *way, last = pattern.split("/")
        node = self._top
        for segment in way:
            node = _step(node, segment)
        if last.endswith("*"):
            start = last[:-1]
            if start not in node.globs:
                node.globs[start] = _Joined(pattern, precedence(pattern))
                if len(start) not in node.lengths:
                    node.lengths.append(len(start))
            return node.globs[start]
        node = _step(node, last)
        if node.ends is None:
            node.ends = _Joined(pattern, precedence(pattern))
        return node.ends


def _step(node: _Node, segment: str) -> _Node:
    if segment != "+":
        return node.literals.setdefault(segment, _Node())
    if node.plus is None:
        node.plus = _Node()
    return node.plus


def _matching(top: _Node, segments: list[str]) -> Iterator[_Joined]:
    """Every pattern that matches, by a walk that keeps its own stack (256 segments are legal)."""
    waiting = [(top, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth == len(segments):
            if node.ends is not None:
                yield node.ends
            continue
        segment = segments[depth]
        for length in node.lengths:
            if length <= len(segment) and segment[:length] in node.globs:
                yield node.globs[segment[:length]]
        if segment in node.literals:
            waiting.append((node.literals[segment], depth + 1))
        if node.plus is not None and segment:
            waiting.append((node.plus, depth + 1))
