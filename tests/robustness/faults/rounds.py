"""Rounds of pauses: node after node stands still (SIGSTOP) for a while, twice round.

A duty goes on to another node when its holder stands still for longer than a session lasts (1 s), and comes
back to one that held it before: so each holder of each duty loses it at least once, and holds it again with a
memory of its own earlier terms. What is promised meanwhile:
* Whoever asks through any gateway is served: one replica of three stands still, and etcd keeps its quorum.
* A seal replica that stands still for less than 10 s stays unsealed: nobody has to give it the root key.
  (On a machine that does other work as well it may be without a proof for longer than it stood still.)
  It unwraps nothing by its old proof, and so answers with an error or late, never wrongly.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator, Sequence

from tests.robustness.faults.fault import Fault, but
from tests.robustness.slack import Slack
from tests.robustness.stage import NODES, Stage

_SERVICES = ("kv", "auth", "lease", "audit")
_SURE = 2.5  # seconds: longer than a session, a proof of the seal, and a request's deadline
_SHORTEST, _LONGEST = 0.5, 4.0
_SOAK_LONGEST = 10.0
_BETWEEN = 0.8  # seconds between two pauses
_ETCD_SERVES_WITHIN = 30.0  # seconds
_NOTICED = 0.5  # seconds: a replica that wiped itself is given the key again after three and more
_STAYS_UNSEALED = 7.0  # seconds of a pause: with a look before and after it still less than 10


def faults(own: random.Random) -> Iterator[Fault]:
    """What runs each time: everything that has duties, and etcd."""
    yield _round("pause lease, kv, auth and audit", _SERVICES, _plan(own, _LONGEST))
    yield _round("pause seal", ("seal",), _plan(own, _LONGEST))
    yield _round("pause etcd", ("etcd",), _plan(own, _LONGEST))
    node = own.choice(NODES)
    yield _round("pause a gateway", ("envoy",), [(node, _SURE)], but(node), silent=[node])


def long_faults(own: random.Random) -> Iterator[Fault]:
    """What takes longer, in a soak: each process by itself, any two of a node, for up to 10 s."""
    for name in (*_SERVICES, "seal", "etcd"):
        yield _round(f"long pauses of {name}", (name,), _plan(own, _SOAK_LONGEST))
    for _ in range(3):
        pair = tuple(own.sample(("etcd", "seal", *_SERVICES), 2))
        yield _round("long pauses of two of a node", pair, _plan(own, _SOAK_LONGEST))


def _plan(own: random.Random, longest: float) -> list[tuple[int, float]]:
    """Each node for long enough that it loses what it holds, then each for a time that is drawn."""
    first = [(number, _SURE) for number in own.sample(NODES, len(NODES))]
    return first + [(number, own.uniform(_SHORTEST, longest)) for number in own.sample(NODES, len(NODES))]


def _round(
    kind: str,
    names: Sequence[str],
    plan: Sequence[tuple[int, float]],
    spared: Sequence[int] = NODES,
    silent: Sequence[int] = (),
) -> Fault:
    def begin(stage: Stage) -> None:
        for number, seconds in plan:
            pause(stage, number, names, seconds)
            time.sleep(_BETWEEN)
            wait_for_etcd(stage)

    told = ", ".join(f"{number + 1}: {seconds:.1f} s" for number, seconds in plan)
    return Fault(kind, told, begin, _resume, 0.0, spared, silent=silent)


def pause(stage: Stage, number: int, names: Sequence[str], seconds: float) -> None:
    """Have some processes of a node stand still; what is dead meanwhile stays so."""
    try:
        for name in names:
            stage.signal(number, name, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for name in names:
            stage.signal(number, name, signal.SIGCONT)
    stage.paused += [(number, name, seconds) for name in names]
    if "etcd" not in names and seconds <= _STAYS_UNSEALED and Slack().now() == 1.0:
        time.sleep(_NOTICED)
        if stage.is_sealed(number):
            stage.violations.append(f"seal: {stage.node(number)} is sealed after a pause of {seconds:.1f} s")


def wait_for_etcd(stage: Stage) -> None:
    """Until every member serves again: without a quorum for ten seconds all seal themselves, as promised."""
    deadline = time.monotonic() + _ETCD_SERVES_WITHIN
    while not all(stage.etcd.serves(stage.node(number)) for number in NODES):
        if time.monotonic() > deadline:
            return  # what does not recover at all is judged after the fault
        time.sleep(0.2)


def _resume(stage: Stage) -> None:
    """Whatever happened, nothing stands still any more."""
    for number in NODES:
        for name in (*_SERVICES, "seal", "etcd", "envoy"):
            stage.signal(number, name, signal.SIGCONT)
