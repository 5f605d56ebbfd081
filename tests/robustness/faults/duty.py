"""The holder of a duty freezes with a transaction under way, which arrives when another is in office."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

from tests.robustness.faults.fault import Fault, but
from tests.robustness.stage import NODES, RELAYED, Stage

_TAKEOVER = 10.0  # seconds


def faults(_: random.Random) -> Iterator[Fault]:
    """It strikes the suite's own duty, on the host whose mail to etcd can be held back."""
    yield Fault(
        "a frozen holder's late transaction", f"node-{RELAYED + 1}", _begin, _end, 0.5, but(RELAYED)
    )  # fmt: skip


def _begin(stage: Stage) -> None:
    others = but(RELAYED)
    for number in others:
        stage.signal_probe(number, signal.SIGSTOP)
    _wait(stage, [RELAYED])
    for number in others:
        stage.signal_probe(number, signal.SIGCONT)
    time.sleep(0.3)
    stage.relay("hold 0 1 2")
    time.sleep(0.06)  # it writes every 0.02 s, so something is on its way by now
    stage.signal_probe(RELAYED, signal.SIGSTOP)
    _wait(stage, others)
    stage.relay("release")


def _end(stage: Stage) -> None:
    for number in NODES:
        stage.signal_probe(number, signal.SIGCONT)


def _wait(stage: Stage, wanted: list[int]) -> None:
    """Until one of these is in office."""
    deadline = time.monotonic() + _TAKEOVER
    while stage.probe_holder() not in wanted:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody takes the suite's own duty over")
        time.sleep(0.05)
