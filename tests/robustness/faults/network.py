"""Hosts do not hear each other; clients do not reach a host; what goes to etcd arrives late."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from tests.robustness.faults.fault import Fault, but
from tests.robustness.stage import NODES, RELAYED, Stage

_CUT = 5.0
_SEALS_ITSELF = 16.0
_LATE = 0.7  # seconds: an attempt at etcd lasts 0.4, so each arrives after its own repetition


def faults(own: random.Random) -> Iterator[Fault]:
    """Each kind once."""
    number = own.choice(NODES)
    yield Fault(
        "partition", f"node-{number + 1}", lambda stage: stage.lab.cut(number + 1), _heal, _CUT, but(number)
    )
    yield Fault("partition of etcd's leader", "whoever leads", _cut_leader, _heal, _CUT, ())
    sender, receiver = own.sample(NODES, 2)
    yield Fault(
        "one-way partition", f"node-{sender + 1} is not heard by node-{receiver + 1}",
        lambda stage: stage.lab.deafen(sender + 1, receiver + 1), _heal, _CUT,
        [each for each in NODES if each not in (sender, receiver)],
    )  # fmt: skip
    alone = own.choice(NODES)
    yield Fault(
        "client-side partition", f"node-{alone + 1}", lambda stage: stage.lab.cut_clients(alone + 1), _heal,
        _CUT, but(alone), silent=[alone],
    )  # fmt: skip
    yield Fault(
        "late delivery to etcd", f"node-{RELAYED + 1}, two members of three in turn", _delay_in_turn,
        lambda stage: stage.relay("release"), 1.0, but(RELAYED),
    )  # fmt: skip
    yield Fault(
        "etcd's mail held back", f"node-{RELAYED + 1}, again and again", _hold_again_and_again,
        lambda stage: stage.relay("release"), 0.5, but(RELAYED),
    )  # fmt: skip


def long_faults(own: random.Random) -> Iterator[Fault]:
    """In a soak: cut off for longer than a seal replica keeps its key without etcd."""
    number = own.choice(NODES)
    yield Fault(
        "partition until it seals itself", f"node-{number + 1}", lambda stage: stage.lab.cut(number + 1),
        _heal, _SEALS_ITSELF, but(number),
    )  # fmt: skip


def _heal(stage: Stage) -> None:
    stage.lab.heal()


def _cut_leader(stage: Stage) -> None:
    stage.lab.cut(stage.leader() + 1)


def _delay_in_turn(stage: Stage) -> None:
    for path in (0, 1, 2, 0):
        stage.relay(f"delay {_LATE} {path} {(path + 1) % 3}")
        time.sleep(1.6)


def _hold_again_and_again(stage: Stage) -> None:
    """Attempts are kept back until they have been repeated elsewhere, then all arrive."""
    for path in (0, 1, 2, 0, 1, 2):
        stage.relay(f"hold {path} {(path + 1) % 3}")
        time.sleep(0.9)
        stage.relay("release")
        time.sleep(0.6)
