"""What etcd keeps, and where: history goes, a member loses everything, the disk or the quota is full."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import grpc

from tests.robustness.door import Rest
from tests.robustness.faults.fault import Fault, but
from tests.robustness.stage import NODES, SMALL_DISK, Stage

FILLER = b"/filler/"
FILLER_END = b"/filler0"
_BLOCK = 1 << 20
_FILLED_WITHIN = 120.0  # seconds
_REVOKED_WITHIN = 30.0  # seconds


def faults(own: random.Random) -> Iterator[Fault]:
    """Each kind once."""
    slow = own.choice(NODES)
    yield Fault(
        "compaction under watches", f"node-{slow + 1}'s audit is paused meanwhile",
        lambda stage: _compact_behind(stage, slow), lambda stage: stage.signal(slow, "audit", signal.SIGCONT),
        0.5,
    )  # fmt: skip
    replaced = own.choice(NODES)
    yield Fault(
        "member replaced", f"node-{replaced + 1}", lambda stage: _replace(stage, replaced),
        lambda stage: stage.start_dead(replaced), 0.5,
    )  # fmt: skip
    yield Fault("full disk", f"node-{SMALL_DISK + 1}", Stage.fill_disk, _free, 4.0, but(SMALL_DISK))
    # Without room nothing can be recorded and so nothing answered; it has to come back by itself.
    yield Fault("etcd filled to its quota", "everything", _fill_and_revoke, empty, 3.0, (), recovery=60.0)


def _compact_behind(stage: Stage, slow: int) -> None:
    """Compact to the newest revision, three times, while a follower sleeps and the others follow."""
    stage.signal(slow, "audit", signal.SIGSTOP)
    for _ in range(3):
        time.sleep(0.8)
        stage.etcd.compact(stage.etcd.revision())


def _replace(stage: Stage, number: int) -> None:
    """The node's member is taken out for good, its data are lost, a new one is announced in its place."""
    node = stage.node(number)
    url = stage.peer_url(number)
    _patiently(lambda: stage.etcd.remove(node))
    stage.signal(number, "etcd", signal.SIGKILL)
    time.sleep(0.5)
    shutil.rmtree(stage.folder / node / "etcd", ignore_errors=True)
    _patiently(lambda: stage.etcd.add(url))


def _patiently(change: Callable[[], None]) -> None:
    """Change who is a member: etcd refuses while one of the others has been connected for less than 5 s."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return change()
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _free(stage: Stage) -> None:
    stage.free_disk()
    stage.start_dead(SMALL_DISK)


def _fill_and_revoke(stage: Stage) -> None:
    """Even then a token can be revoked: nobody may have to wait for room to shut somebody out."""
    rest = Rest(stage.gateway(0))
    try:
        made = rest.until_done(stage.cluster.root_token, "POST", "/v1/tokens", {"policies": [], "ttl": "1h"})
        fill(stage)
        path = f"/v1/tokens/{made.body['accessor']}"
        try:
            rest.until_done(stage.cluster.root_token, "DELETE", path, within=_REVOKED_WITHIN)
        except TimeoutError as refused:
            stage.violations.append(f"admission: while etcd's alarm stands: {refused}")
    finally:
        rest.close()


def fill(stage: Stage) -> None:
    """Write until etcd says that its space is used up."""
    block = bytes(_BLOCK)
    deadline = time.monotonic() + _FILLED_WITHIN
    for number in range(100_000):
        try:
            stage.etcd.put(FILLER + b"%06d" % number, block)
        except grpc.RpcError as error:
            if "space exceeded" in str(error):
                return
            time.sleep(0.1)
        if time.monotonic() > deadline:
            raise TimeoutError(f"etcd is not full after {number} MiB")


def empty(stage: Stage) -> None:
    """Take away what filled it; the rest is the product's business."""
    with contextlib.suppress(grpc.RpcError):
        stage.etcd.delete(FILLER, FILLER_END)
