"""Who looks at a node's health, all the time: it may say that it does not know, and nothing that is not so.

The cluster was initialised before the run began, and stays so: `initialized: false` is a lie, whoever is cut
off, restarted or without keys. What is answered here says nothing of the service, and is not in the history.
"""

from __future__ import annotations

import time

from tests.robustness.door import Rest
from tests.robustness.history import History
from tests.robustness.traffic.asking import Target, Worker

_PAUSE = 0.25  # seconds


class Lies:
    """What was told that is not so."""

    def __init__(self) -> None:
        self.answers = 0
        self.violations: list[str] = []


class Onlooker(Worker):
    """At one node's gateway."""

    def __init__(self, target: Target, history: History, lies: Lies, node: int) -> None:
        super().__init__(target, history)
        self._lies, self._node = lies, node
        self._door = Rest(target.gateways[node])

    def turn(self) -> None:
        """One look."""
        answer = self._door.call("", "GET", "/v1/sys/health")
        if answer.status == 200:
            self._lies.answers += 1
            if answer.body.get("initialized") is False:
                self._lies.violations.append(
                    f"health: node-{self._node + 1} says `initialized: false` at t={time.monotonic():.3f}"
                )
        time.sleep(_PAUSE)

    def close(self) -> None:
        """Its connection as well."""
        self._door.close()
        super().close()
