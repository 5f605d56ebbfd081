"""The form of a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.robustness.stage import NODES, Stage


@dataclass(frozen=True, slots=True)
class Fault:
    """`begin` does it, `end` undoes it `hold` seconds later.

    `spared`: nodes through whose gateways clients must be served meanwhile, without an answer for at most
    `pause` seconds (figures for a machine that is busy with other things; the report says what it was).
    `silent`: nodes whose gateway itself is struck, so that requests there may get no answer at all.
    """

    kind: str
    where: str
    begin: Callable[[Stage], None]
    end: Callable[[Stage], None]
    hold: float
    spared: Sequence[int] = NODES
    pause: float = 12.0
    silent: Sequence[int] = ()
    recovery: float = 45.0  # seconds until everything serves again

    def __str__(self) -> str:
        return f"{self.kind} ({self.where})"


def but(number: int) -> list[int]:
    """The other nodes."""
    return [each for each in NODES if each != number]


def nothing(_: Stage) -> None:
    """For faults that are over as soon as they are done."""
