"""Why something is allowed or not: which rule decides, and what is missing. Pure functions of a view.

* About a token by its accessor (`read` on `auth/tokens/<accessor>`, unless it is the caller's own), or about
  policies by name. Either way the answer names rules, so it needs `read` on `sys/policies/<name>` of each
  policy that is not built in.
* It asks the same engine that decides requests, with the same policies at the same revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.auth import policies, policy_delegation
from services.auth.tokens import Tokens, path_of
from strongbox import paths
from strongbox.access.guard import Caller, Guard
from strongbox.access.policy_engine import CAPABILITIES
from strongbox.access.record_reader import BUILT_IN, policy_keys
from strongbox.errors import InvalidInput
from strongbox.store.decisions.view import View


class Question(NamedTuple):
    """May an accessor's token, or may these policies, do `capability` on `path`?"""

    accessor: str
    policies: tuple[str, ...]
    path: str
    capability: str

    @classmethod
    def parse(cls, accessor: str, names: Sequence[str], path: str, capability: str) -> Question:
        """Raises `InvalidInput`."""
        if bool(accessor) == bool(names):
            raise InvalidInput("either an accessor or policies are explained")
        paths.require_canonical(path.removesuffix("/"))
        if capability not in CAPABILITIES - {"deny"}:
            raise InvalidInput(f"capability is one of {' '.join(sorted(CAPABILITIES - {'deny'}))}")
        return cls(accessor, policy_delegation.require_names(names), path, capability)


class Explanation(NamedTuple):
    """`policy` and `rule`: what decided (empty: nothing); `missing`: the capability to be granted."""

    allowed: bool
    policy: str = ""
    rule: str = ""
    reason: str = ""
    missing: str = ""


class Explain:
    """Answers questions about access."""

    def __init__(self, guard: Guard, tokens: Tokens) -> None:
        self._guard, self._tokens = guard, tokens

    def answer(self, view: View, caller: Caller, question: Question) -> Explanation:
        """Raises `PermissionDenied`, `NotFound`."""
        names = self._names(view, caller, question)
        for name in names:
            if paths.fold_name(name) not in BUILT_IN:
                caller.require("read", policies.policy_path(name))
        view.prefetch(*policy_keys(names))
        for name in names:
            policy = self._guard.lookup.policy(view, name)
            if policy is None or policy.name != name:
                reason = f"the policy {name} does not exist, so a token that names it is refused everywhere"
                return Explanation(False, name, "", reason)
        return self._decided(view, names, question)

    def _names(self, view: View, caller: Caller, question: Question) -> tuple[str, ...]:
        if not question.accessor:
            return question.policies
        if question.accessor != caller.accessor:
            caller.require("read", path_of(question.accessor))
        return tuple(self._tokens.lookup(view, question.accessor).record.policies)

    def _decided(self, view: View, names: tuple[str, ...], question: Question) -> Explanation:
        compiled = self._guard.policies_of(view, names)
        decision = compiled.decide(question.capability, question.path)
        spelt = {paths.fold_name(name): name for name in names}
        policy = ", ".join(spelt.get(name, name) for name in decision.policies)
        if decision.allowed:
            return Explanation(True, policy, decision.pattern, "the rule grants it")
        if not decision.pattern:
            return Explanation(False, "", "", "no rule matches the path", question.capability)
        if compiled.denies(question.path):
            return Explanation(False, policy, decision.pattern, "the rule that wins denies everything")
        return Explanation(
            False, policy, decision.pattern, "the rule that wins does not grant it", question.capability
        )
