"""A node's wall clock jumps: all its services believe another time (as with libfaketime)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.robustness.faults.fault import Fault
from tests.robustness.stage import NODES, Stage

_JUMP = 45.0  # seconds: far beyond what is tolerated (2), and beyond any token's life that matters here


def faults(own: random.Random) -> Iterator[Fault]:
    """Ahead, and back."""
    for seconds, kind in ((_JUMP, "clock jumps ahead"), (-_JUMP, "clock jumps back")):
        yield _jump(own.choice(NODES), seconds, kind)


def _jump(number: int, seconds: float, kind: str) -> Fault:
    def begin(stage: Stage) -> None:
        stage.skew(number, seconds)

    def end(stage: Stage) -> None:
        stage.skew(number, 0.0)

    return Fault(kind, f"node-{number + 1}, {abs(seconds):.0f} s", begin, end, 3.0)
