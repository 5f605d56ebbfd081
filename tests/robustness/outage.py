"""How long something is away: after a duty's holder is killed, after a node is killed."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from typing import Any, Self

import httpx

from tests.support.clients import Refused, RestClient
from tests.support.cluster import Cluster

_LOOK_EVERY = 0.01
_PATIENCE = 30.0
_runs = itertools.count()


class Writer:
    """One client that writes a new secret after the other through one gateway; a context manager."""

    def __init__(self, cluster: Cluster, token: str, node: int) -> None:
        self.acknowledged: dict[str, str] = {}  # value by path
        self.failures: list[str] = []
        self._moments: list[tuple[float, float]] = []  # when an acknowledged write was begun, and answered
        self._prefix = f"load/{os.getpid()}-{next(_runs)}-{time.time_ns():x}"
        self._rest, self._stop = cluster.rest(token, node), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def first_after(self, moment: float) -> float:
        """When the first write that was begun after `moment` was acknowledged. Raises TimeoutError."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for begun, answered in list(self._moments):
                if begun >= moment:
                    return answered
            time.sleep(_LOOK_EVERY)
        raise TimeoutError(f"no write is acknowledged: {self.failures[-3:]}")

    def wait_for(self, writes: int) -> None:
        """Until so many more were acknowledged. Raises TimeoutError."""
        wanted, deadline = len(self.acknowledged) + writes, time.monotonic() + _PATIENCE
        while len(self.acknowledged) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{writes} writes take too long: {self.failures[-3:]}")
            time.sleep(_LOOK_EVERY)

    @property
    def longest_pause(self) -> float:
        """The longest time between two acknowledgements."""
        answers = [answered for _, answered in self._moments]
        return max((later - earlier for earlier, later in itertools.pairwise(answers)), default=0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_PATIENCE)
        self._rest.close()

    def _work(self) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            path, begun = f"{self._prefix}/{number}", time.monotonic()
            try:
                self._rest.write(path, path)
            except (Refused, httpx.HTTPError) as error:
                self.failures.append(f"{type(error).__name__} {error}")
                continue
            self._moments.append((begun, time.monotonic()))
            self.acknowledged[path] = path


def kill_node(cluster: Cluster, node: str) -> float:
    """SIGKILL to every process of a node in one breath; when that was (monotonic)."""
    pids = [process.pid for process in cluster.processes() if process.node == node]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def wait_for_successor(
    cluster: Cluster, duty: str, service: str = ""
) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """Kill the process that holds `duty`; seconds until health names another node, and health before, after.

    `service`: whose duty it is, when that is not its name.
    """
    nodes = cluster.node_ids
    with cluster.rest() as rest:
        before = _with_holder(rest, duty)
    holder = str(before["leaders"][duty])
    with cluster.rest(node=(nodes.index(holder) + 1) % len(nodes)) as rest:
        rest.call("GET", "/v1/sys/health")
        cluster.process(holder, service or duty).kill()
        killed = time.monotonic()
        while time.monotonic() < killed + _PATIENCE:
            after = _health(rest)
            if after["leaders"].get(duty, holder) != holder:
                return time.monotonic() - killed, before, after
            time.sleep(_LOOK_EVERY)
    raise TimeoutError(f"nobody took the duty {duty} over in {_PATIENCE:.0f} s")


def _with_holder(rest: RestClient, duty: str) -> dict[str, Any]:
    """Health, once somebody is in office: on a busy machine sessions end by themselves."""
    deadline = time.monotonic() + _PATIENCE
    while duty not in (found := _health(rest))["leaders"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody holds the duty {duty}")
        time.sleep(_LOOK_EVERY)
    return found


def _health(rest: RestClient) -> dict[str, Any]:
    return rest.call("GET", "/v1/sys/health")
