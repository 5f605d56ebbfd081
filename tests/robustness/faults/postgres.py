"""PostgreSQL is down, frozen, lets nobody in, has no room; it dies again and again with its neighbours."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from tests.robustness.faults.fault import Fault
from tests.robustness.faults.rounds import wait_for_etcd
from tests.robustness.killer import Killer
from tests.robustness.stage import Stage

_DOWN = 2.0
_FROZEN = 4.0  # seconds: whoever waits for it gives up after 2.5
_REFUSING = 3.0
_KILLS = 25  # with those of other faults 30 and more; on a busy machine as many as there is time for
_KILLING = 45.0  # seconds
_WHERE = "PostgreSQL"


def faults(own: random.Random) -> Iterator[Fault]:
    """Each kind once; nobody but who asks for credentials may notice any of them."""
    yield Fault("kill PostgreSQL", _WHERE, _kill, _start, _DOWN)
    yield Fault("pause PostgreSQL", _WHERE, lambda stage: stage.postgres.freeze(), _thaw, _FROZEN)
    yield Fault(
        "PostgreSQL refuses", "all sessions end, nobody gets in", lambda stage: stage.postgres.refuse(),
        lambda stage: stage.postgres.admit(), _REFUSING,
    )  # fmt: skip
    yield Fault(
        "PostgreSQL is full", "max_connections", lambda stage: stage.postgres.fill(),
        lambda stage: stage.postgres.drain(), _REFUSING,
    )  # fmt: skip
    seed = own.random()
    yield Fault(
        "kill lease, etcd, PostgreSQL", "again and again", lambda stage: _kill_on(stage, seed),
        Stage.start_dead, 0.0,
    )  # fmt: skip


def _kill(stage: Stage) -> None:
    stage.postgres.kill()
    stage.killed.append("postgres")


def _start(stage: Stage) -> None:
    stage.postgres.start()


def _thaw(stage: Stage) -> None:
    stage.postgres.thaw()
    time.sleep(0.1)


def _kill_on(stage: Stage, seed: float) -> None:
    killer = Killer(stage.cluster, stage.postgres, random.Random(seed))
    until = time.monotonic() + _KILLING
    while len(killer.killed) < _KILLS and time.monotonic() < until:
        killer.round()
        wait_for_etcd(stage)  # or the next round takes a second member, and all seal themselves, as promised
    stage.killed += killer.killed
