"""kill -9 of lease replicas, etcd members and PostgreSQL at moments and in an order that a seed decides."""

from __future__ import annotations

import random
import time

from strongbox.dev.runner import runner_socket
from tests.robustness.postgres import Postgres
from tests.support.cluster import Cluster

_SERVER = ("postgres", "postgres")
_AT_ONCE = (1, 2, 3, 4)  # in one round
_APART = 0.3  # seconds at most between two kills of a round
_CALM = 0.4  # seconds at most between a round and the next


class Killer:
    """In rounds: some die, shortly after each other; then what is dead is started again."""

    def __init__(self, cluster: Cluster, server: Postgres, own: random.Random) -> None:
        self._cluster, self._server, self._random = cluster, server, own
        self.killed: list[str] = []  # names of processes

    def round(self) -> None:
        """Kill, and start again. Raises RuntimeError when something does not start."""
        struck = self._choose()
        for name, node in struck:
            time.sleep(self._random.uniform(0.0, _APART))
            self._kill(name, node)
        answer = runner_socket.ask(self._cluster.folder, {"start": sorted({node for _, node in struck})})
        if "error" in answer:
            raise RuntimeError(f"{struck} do not start: {answer['error']}")
        time.sleep(self._random.uniform(0.0, _CALM))

    def _choose(self) -> list[tuple[str, str]]:
        """Any of them, but one member of etcd: without a quorum nothing would be under way."""
        node = self._random.choice(self._cluster.node_ids)
        targets = [*(("lease", each) for each in self._cluster.node_ids), ("etcd", node), _SERVER]
        return self._random.sample(targets, self._random.choice(_AT_ONCE))

    def _kill(self, name: str, node: str) -> None:
        if (name, node) == _SERVER:
            self._server.kill()
        else:
            self._cluster.process(node, name).kill()
        self.killed.append(name)
