"""A secret that holds, in turn, what nobody may see and what everybody may; a policy that follows it.

Whoever sees the first was let in by a policy older or newer than what he read.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.robustness.history import History
from tests.robustness.traffic.asking import CANARY, Asked, Target, Worker, field_of

_ROUNDS = 8  # of one veil
_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Veil:
    """A secret's path, the policy in front of it, and a token of that policy."""

    path: str
    policy: str
    token: str

    @property
    def subject(self) -> str:
        return f"veil:{self.policy}"


class Veils:
    """The veil that is looked at now."""

    current: Veil | None = None


class VeilKeeper(Worker):
    """Writes and lifts the policy, each step only when the one before is acknowledged."""

    def __init__(self, target: Target, history: History, veils: Veils) -> None:
        super().__init__(target, history)
        self._veils = veils
        self._stop = threading.Event()

    def turn(self) -> None:
        """A veil's whole life."""
        veil = self._new()
        if veil is None:
            time.sleep(0.1)
            return
        for number in range(_ROUNDS):
            steps: tuple[Callable[[], bool], ...] = (
                lambda number=number: self._write(veil, f"{CANARY}hidden-{number}"),
                lambda number=number: self._write(veil, f"{CANARY}open-{number}"),
                lambda: self._allow(veil, allowed=True),
                lambda: self._allow(veil, allowed=False),
            )
            for step in steps:
                if not step():  # what it came to is not known; so this veil is over, and another begins
                    return
                self._veils.current = veil  # once something is written
                time.sleep(self.random.choice((0.0, 0.0, 0.02)))

    def _new(self) -> Veil | None:
        name = f"veil-{next(_names)}"
        rules = {"rules": _rules(name, allowed=False)}
        asked = Asked("made", "policy", (False,), ("WritePolicy", f"sys/policies/{name}"), changes=True)
        if self.rest(asked, self.target.root, "PUT", f"/v1/policies/{name}", rules).status != 200:
            return None
        asked = Asked("made", "create", (name,), ("CreateToken", "auth/tokens"), changes=True)
        made = self.rest(asked, self.target.root, "POST", "/v1/tokens", {"policies": [name], "ttl": "24h"})
        return Veil(f"veiled/{name}", name, str(made.body["token"])) if made.status == 200 else None

    def _write(self, veil: Veil, value: str) -> bool:
        asked = Asked(veil.subject, "cover", (value,), ("WriteSecret", f"secret/{veil.path}"), changes=True)
        body = {"value": value}
        return self.rest(asked, self.target.root, "PUT", f"/v1/secrets/{veil.path}", body).status == 200

    def _allow(self, veil: Veil, *, allowed: bool) -> bool:
        asked = Asked(
            veil.subject, "policy", (allowed,), ("WritePolicy", f"sys/policies/{veil.policy}"), changes=True
        )
        body = {"rules": _rules(veil.policy, allowed=allowed)}
        return self.rest(asked, self.target.root, "PUT", f"/v1/policies/{veil.policy}", body).status == 200


class Looker(Worker):
    """Looks, through every node."""

    def __init__(self, target: Target, history: History, veils: Veils) -> None:
        super().__init__(target, history)
        self._veils = veils

    def turn(self) -> None:
        veil = self._veils.current
        if veil is None:
            return
        asked = Asked(
            veil.subject, "look", (0,), ("ReadSecret", f"secret/{veil.path}"),
            read_output=lambda answer: (str(field_of(answer, "value")),),
        )  # fmt: skip
        self.rest(asked, veil.token, "GET", f"/v1/secrets/{veil.path}")


def _rules(name: str, *, allowed: bool) -> list[dict[str, object]]:
    path = f"secret/veiled/{name}" if allowed else "secret/veiled/none"
    return [{"path": path, "capabilities": ["read"]}]
