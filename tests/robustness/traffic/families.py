"""A token and its child, used through every node while one of the two is revoked."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.robustness.history import History
from tests.robustness.traffic.asking import Asked, Target, Worker

POLICY = "robust-client"


@dataclass(frozen=True, slots=True)
class Family:
    """(token, accessor) of the `parent` and of the `child`."""

    subject: str
    tokens: dict[str, tuple[str, str]]


class Registry:
    """The family that is used now."""

    current: Family | None = None


class FamilyMaker(Worker):
    """Makes families and ends them."""

    def __init__(self, target: Target, history: History, registry: Registry) -> None:
        super().__init__(target, history)
        self._registry = registry

    def turn(self) -> None:
        """A family's whole life."""
        parent = self._make("parent", self.target.client)
        child = self._make("child", parent[0]) if parent else None
        if parent is None or child is None:
            time.sleep(0.1)
            return
        family = Family(f"family:{parent[1]}", {"parent": parent, "child": child})
        self._registry.current = family
        time.sleep(self.random.uniform(0.1, 0.4))
        for who in self.random.choice((("parent",), ("child",), ("child", "parent"))):
            accessor = family.tokens[who][1]
            asked = Asked(
                family.subject, "revoke", (who,), ("RevokeToken", f"auth/tokens/{accessor}"), changes=True
            )
            self.rest(asked, self.target.root, "DELETE", f"/v1/tokens/{accessor}")
        time.sleep(self.random.uniform(0.05, 0.2))

    def _make(self, who: str, token: str) -> tuple[str, str] | None:
        asked = Asked("made", "create", (who,), ("CreateToken", "auth/tokens"), changes=True)
        made = self.rest(asked, token, "POST", "/v1/tokens", {"policies": [POLICY], "ttl": "1h"})
        return (str(made.body["token"]), str(made.body["accessor"])) if made.status == 200 else None


class FamilyUser(Worker):
    """Uses whichever family there is, through one node."""

    def __init__(self, target: Target, history: History, registry: Registry, node: int) -> None:
        super().__init__(target, history)
        self._registry, self._node = registry, node

    def turn(self) -> None:
        """One request: 401 when the token is dead, 404 when it lives."""
        family = self._registry.current
        if family is None:
            return
        who = self.random.choice(("parent", "child"))
        asked = Asked(family.subject, "use", (who,), None)
        self.rest(asked, family.tokens[who][0], "GET", "/v1/secrets/robust/none", node=self._node)
