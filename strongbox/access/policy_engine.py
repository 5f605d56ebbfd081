"""Policies: what a pattern matches, which pattern wins, what it then allows. Pure; no I/O, no time.

Rules:
* A pattern is a canonical path (strongbox.paths) that may end in `/` (a directory, for listings), may have
  `+` as a whole segment: it matches one segment that is not empty; and one `*` at its very end, even
  mid-segment: it matches any suffix, the empty one and further segments included. Nothing else is special.
* Of all patterns that match, one wins: first wildcard later (none at all is latest); then not ending in `*`;
  then fewer `+`; then longer; then lexically larger (Vault's order).
* Rules of equal pattern are joined, across policies. `deny` in the winning pattern refuses everything.
  Patterns that do not win have no say. Where none matches, nothing is allowed.
* Text that is no pattern, and one pattern twice in a policy (ambiguous), are refused with the rule's index
  and the reason. So are rules that make no sense (strongbox.access.policy_validation).
* The built-in `root` allows everything; no rule can express it.

Each policy is compiled into a trie by segment, once for each revision, for all tokens that have it. A token's
policies are walked one after the other along the path, and the best of their winners wins. What a decision
costs follows the path's length and the patterns that match so far, not the number of rules. Patterns such as
`app*` cost one lookup for each length of such a beginning that occurs, however many patterns there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from strongbox import paths
from strongbox.errors import InvalidInput, InvalidPath

CAPABILITIES = frozenset({"read", "write", "delete", "list", "metadata", "sudo", "deny"})
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


class _Ending(NamedTuple):
    """The rule whose pattern ends at a node."""

    rank: Precedence
    rule: Rule


class _Node:
    """The patterns that share the segments on the way here. Nodes may be many, so empty fields are None."""

    __slots__ = ("ends", "globs", "lengths", "literals", "plus")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] | None = None
        self.plus: _Node | None = None
        self.ends: _Ending | None = None
        self.globs: dict[str, _Ending] | None = None  # what the last segment begins with → rule
        self.lengths: tuple[int, ...] = ()  # of those beginnings, each once


class CompiledPolicy:
    """One policy's rules, each with its rank. `nodes`: how large it is; each is some 300 bytes."""

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        self.name, self.nodes = name, 1
        self.is_denying = any("deny" in rule.capabilities for rule in rules)
        self._top = _Node()
        self.rules = tuple(_Ending(precedence(rule.path), rule) for rule in rules)
        for ending in self.rules:
            self._add(ending)

    def winner(self, segments: list[str]) -> _Ending | None:
        """The rule that wins in this policy on a path."""
        return max(_matching(self._top, segments), key=lambda ending: ending.rank, default=None)

    def _add(self, ending: _Ending) -> None:
        *way, last = ending.rule.path.split("/")
        node = self._top
        for segment in way:
            node = self._step(node, segment)
        if not last.endswith("*"):
            self._step(node, last).ends = ending
            return
        start = last[:-1]
        if node.globs is None:
            node.globs = {}
        node.globs[start] = ending
        self.nodes += 1
        if len(start) not in node.lengths:
            node.lengths = (*node.lengths, len(start))

    def _step(self, node: _Node, segment: str) -> _Node:
        if segment == "+":
            if node.plus is None:
                node.plus = _Node()
                self.nodes += 1
            return node.plus
        if node.literals is None:
            node.literals = {}
        found = node.literals.get(segment)
        if found is None:
            found = node.literals[segment] = _Node()
            self.nodes += 1
        return found


def node_count(rules: Sequence[Rule]) -> int:
    """How many nodes these rules need, without making them."""
    ways = (rule.path.split("/") for rule in rules)
    return 1 + len({"/".join(way[:end]) for way in ways for end in range(1, len(way) + 1)})


class Policies:
    """The policies of a token. `root` among them allows everything."""

    def __init__(self, compiled: Sequence[CompiledPolicy], *, is_root: bool = False) -> None:
        self.is_root = is_root
        self.compiled = tuple(compiled)

    @classmethod
    def of(cls, policies: Mapping[str, Sequence[Rule]], *, is_root: bool = False) -> Policies:
        """From the rules of each policy, by its name."""
        return cls([CompiledPolicy(name, rules) for name, rules in policies.items()], is_root=is_root)

    @property
    def denying(self) -> frozenset[str]:
        """The names of the policies that deny something."""
        return frozenset(policy.name for policy in self.compiled if policy.is_denying)

    def decide(self, capability: str, path: str) -> Decision:
        """Whether `capability` is allowed on `path`; `deny` itself is never allowed."""
        if capability == "deny":
            return NOTHING
        if self.is_root:
            return Decision(True, "*", ("root",))
        pattern, granted = self._winner(path)
        for asked in ("deny", capability):
            if asked in granted:
                return Decision(asked != "deny", pattern, tuple(granted[asked]))
        named = dict.fromkeys(name for names in granted.values() for name in names)
        return Decision(False, pattern, tuple(named))

    def denies(self, path: str) -> bool:
        """Whether the pattern that wins on `path` refuses everything."""
        return "deny" in self._winner(path)[1]

    def _winner(self, path: str) -> tuple[str, dict[str, list[str]]]:
        """The pattern that wins (empty: none matches), and which policies give what there."""
        segments = path.split("/")
        best: Precedence | None = None
        joined: dict[str, list[str]] = {}
        for policy in self.compiled:
            found = policy.winner(segments)
            if found is None or (best is not None and found.rank < best):
                continue
            if best is None or found.rank > best:
                best, joined = found.rank, {}
            for capability in found.rule.capabilities:
                joined.setdefault(capability, []).append(policy.name)
        return ("" if best is None else best.text), joined


def _matching(top: _Node, segments: list[str]) -> Iterator[_Ending]:
    """Every pattern that matches, by a walk that keeps its own stack (256 segments are legal)."""
    waiting = [(top, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth == len(segments):
            if node.ends is not None:
                yield node.ends
            continue
        segment = segments[depth]
        if node.globs is not None:
            for length in node.lengths:
                if length <= len(segment) and segment[:length] in node.globs:
                    yield node.globs[segment[:length]]
        if node.literals is not None and segment in node.literals:
            waiting.append((node.literals[segment], depth + 1))
        if node.plus is not None and segment:
            waiting.append((node.plus, depth + 1))
