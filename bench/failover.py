"""`python -m bench.failover`: how long nobody can write after the leading node was killed, beside OpenBao.

Both systems have three nodes on this machine and are treated alike: clients write through one of the other
nodes, kill -9 ends all processes of the leading node (etcd's leader with all its services and its gateway;
OpenBao's active node), and the time counts to the first acknowledged write that was begun after the kill.
Then the node is started again. OpenBao runs with its default `performance_multiplier` (5) and with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import httpx

from bench.openbao import OpenBao
from bench.strongbox import StrongBox
from strongbox.dev.runner import runner_socket
from tests.robustness.outage import kill_node
from tests.support.etcd_door import EtcdDoor

_CLIENTS = 2
_GIVE_UP = 60.0
_SETTLE = 3.0


class Failing(Protocol):
    """A system whose nodes can be killed."""

    def leader(self) -> int:
        """The node that leads."""

    def kill(self, number: int) -> None:
        """kill -9 of everything of a node."""

    def restart(self, number: int) -> None:
        """Start it again; returns when it takes part."""

    def write(self, client: httpx.Client, number: int) -> httpx.Response:
        """One write through a node."""


class FailingStrongBox(StrongBox):
    def leader(self) -> int:
        node = EtcdDoor(self.cluster).leader()
        return self.cluster.node_ids.index(node)

    def kill(self, number: int) -> None:
        kill_node(self.cluster, self.cluster.node_ids[number])

    def restart(self, number: int) -> None:
        node = self.cluster.node_ids[number]
        answer = runner_socket.ask(self.cluster.folder, {"start": [node]})
        if "error" in answer:
            raise RuntimeError(answer["error"])
        url, deadline = self.cluster.gateways[number], time.monotonic() + _GIVE_UP
        while httpx.get(url + "/v1/sys/ready", timeout=5).status_code != 200:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{node} is not ready")
            time.sleep(0.1)

    def write(self, client: httpx.Client, number: int) -> httpx.Response:
        url = f"{self.cluster.gateways[number]}/v1/secrets/bench/write/failover"
        return client.put(url, headers=self.headers, json={"value": "x"})


class FailingOpenBao(OpenBao):
    def __init__(self, nodes: int, multiplier: int = 0) -> None:
        super().__init__(nodes, multiplier)
        self.wait_voters()

    def leader(self) -> int:
        return self.active()

    def write(self, client: httpx.Client, number: int) -> httpx.Response:
        address = self.addresses[number]
        url = f"http://{address.host}:{address.port}/v1/secret/data/bench/write/failover"
        return client.post(url, headers={"x-vault-token": self.token}, json={"data": {"value": "x"}})


SYSTEMS: dict[str, Callable[[], FailingStrongBox | FailingOpenBao]] = {
    "StrongBox": lambda: FailingStrongBox(3),
    "OpenBao": lambda: FailingOpenBao(3),
    "OpenBao, performance_multiplier 1": lambda: FailingOpenBao(3, 1),
}


def trial(system: Failing) -> float:
    """Kill the leading node; seconds until the next write is acknowledged through another."""
    leader = system.leader()
    with _writing(system, (leader + 1) % 3) as moments:
        _until(lambda: len(moments) >= 10)
        system.kill(leader)
        killed = time.monotonic()
        _until(lambda: any(begun >= killed for begun, _ in list(moments)))
        took = min(answered for begun, answered in list(moments) if begun >= killed) - killed
    system.restart(leader)
    time.sleep(_SETTLE)
    return took


@contextlib.contextmanager
def _writing(system: Failing, number: int) -> Iterator[list[tuple[float, float]]]:
    """Clients that write through a node; (begun, answered) of each acknowledged write."""
    moments: list[tuple[float, float]] = []
    over = threading.Event()

    def work() -> None:
        with httpx.Client(timeout=10, verify=False) as client:  # plain HTTP on loopback
            while not over.is_set():
                begun = time.monotonic()
                with contextlib.suppress(httpx.HTTPError):
                    if system.write(client, number).status_code == 200:
                        moments.append((begun, time.monotonic()))
                        continue
                time.sleep(0.005)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield moments
    finally:
        over.set()
        for thread in threads:
            thread.join(20)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _GIVE_UP
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("no write is acknowledged")
        time.sleep(0.002)


def main() -> int:
    """A row for each system, or JSON."""
    parser = argparse.ArgumentParser(prog="bench.failover", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--only", default="", help="systems whose name contains this")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    for name, start in SYSTEMS.items():
        if options.only not in name:
            continue
        system = start()
        try:
            found[name] = [trial(system) for _ in range(options.trials)]
        finally:
            system.stop()
        if options.output == "table":
            took = found[name]
            print(
                f"{name:36} {len(took)} trials: median {statistics.median(took):.2f} s, "
                f"least {min(took):.2f} s, most {max(took):.2f} s",
                flush=True,
            )
    if options.output == "json":
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
