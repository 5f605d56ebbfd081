"""The wall clock of the node that keeps the cluster's time jumps: all its services believe another time."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.robustness.faults.fault import Fault
from tests.robustness.stage import NODES, Stage

_JUMP = 45.0  # seconds: far beyond what is tolerated (2)


def faults(own: random.Random) -> Iterator[Fault]:
    """Ahead, and back."""
    for seconds, kind in ((_JUMP, "clock jumps ahead"), (-_JUMP, "clock jumps back")):
        yield _jump(own.choice(NODES), seconds, kind)


def _jump(otherwise: int, seconds: float, kind: str) -> Fault:
    def begin(stage: Stage) -> None:
        holder = stage.holder("audit")
        stage.skew(otherwise if holder is None else holder, seconds)

    def end(stage: Stage) -> None:
        for number in NODES:
            stage.skew(number, 0.0)

    return Fault(kind, f"the audit duty's holder, {abs(seconds):.0f} s", begin, end, 4.0)
