"""Processes die. (How they stand still is in `rounds`.)"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

from tests.robustness.faults.fault import Fault, but
from tests.robustness.stage import NAMES, NODES, Stage

_DEAD = 1.5  # seconds a killed process stays dead
_WHOLE = "everything"


def faults(own: random.Random) -> Iterator[Fault]:
    """Each process once killed; etcd's leader; a node."""
    for name in NAMES:
        yield _kill(own.choice(NODES), name)
    yield _kill_leader()
    yield _kill_holder()
    yield _kill_node()


def total() -> Iterator[Fault]:
    """What stops everything: the seal, and a restart of all processes."""
    yield Fault("seal and unseal", _WHOLE, _seal, _unseal, 1.0, spared=())
    yield Fault("restart of everything", _WHOLE, Stage.restart_everything, _no_more, 0.0, (), silent=NODES)


def _no_more(_: Stage) -> None:
    pass


def _kill(number: int, name: str) -> Fault:
    return Fault(
        f"kill {name}", f"node-{number + 1}",
        lambda stage: stage.signal(number, name, signal.SIGKILL), lambda stage: stage.start_dead(number),
        _DEAD, *_seen_by(number, name),
    )  # fmt: skip


def _seen_by(number: int, name: str) -> tuple[list[int], float, list[int]]:
    """A gateway's own death is seen by its clients; everything else is made up for."""
    if name == "envoy":
        return but(number), 12.0, [number]
    return list(NODES), 12.0, []


def _kill_leader() -> Fault:
    return Fault(
        "kill etcd's leader", "whoever leads", lambda stage: _to_leader(stage, signal.SIGKILL),
        Stage.start_dead, _DEAD,
    )  # fmt: skip


def _to_leader(stage: Stage, which: signal.Signals) -> None:
    stage.signal(stage.leader(), "etcd", which)


def _kill_holder() -> Fault:
    def begin(stage: Stage) -> None:
        for _ in range(3):
            holder = stage.holder("audit")
            if holder is not None:
                stage.signal(holder, "audit", signal.SIGKILL)
            time.sleep(1.5)

    return Fault("kill the audit duty's holders", "one after the other", begin, Stage.start_dead, 0.5)


def _kill_node() -> Fault:
    struck: list[int] = []

    def begin(stage: Stage) -> None:
        struck[:] = [stage.leader()]
        stage.signal_all(struck[0], signal.SIGKILL)

    # Which node it will be is not known beforehand, so the silence of all together is measured.
    return Fault(
        "kill a node", "with etcd's leader", begin, lambda stage: stage.start_dead(*struck), 3.0, (),
        silent=NODES,
    )  # fmt: skip


def _seal(stage: Stage) -> None:
    stage.seal()


def _unseal(stage: Stage) -> None:
    stage.unseal()
