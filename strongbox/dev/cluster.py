"""A local cluster in the hands of a test or a benchmark: started apart, damaged at will, stopped.

Processes are named by node (`node-1` …, `postgres`) and name (`etcd`, `seal`, `kv`, `auth`, `lease`,
`audit`, `envoy`; `postgres`). The cluster ends when the *thread* that started it ends: start it from the main
one.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from strongbox.dev.layout import Wishes
from strongbox.dev.ports import free_base
from strongbox.dev.processes.children import Identity, wait_until_gone
from strongbox.dev.runner import commands
from strongbox.dev.runner.commands import Up


@dataclass(frozen=True, slots=True)
class Process:
    """One process as cluster.json lists it now."""

    node: str
    name: str
    address: str
    identity: Identity

    @property
    def pid(self) -> int:
        return self.identity.pid


class Cluster:
    """A handle: reads DIR/cluster.json whenever it is asked. As a context manager it stops the cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        nodes: int = 3,
        base_port: int | None = None,
        unseal: bool = True,
        postgres: bool = False,
        tls: bool = False,
    ) -> Self:
        """Start a cluster, new or from the folder's data; free gateway ports unless told. Raises DevError."""
        if base_port is None and not (folder / "layout.json").exists():
            base_port = free_base(nodes)
        wishes = Wishes(nodes, base_port, tls, postgres)
        commands.up_detached(Up(folder.resolve(), wishes, unseal=unseal, owned=True))
        return cls(folder.resolve())

    @property
    def description(self) -> dict[str, Any]:
        """cluster.json."""
        return commands.read_cluster(self.folder)

    @property
    def nodes(self) -> list[str]:
        return [node["id"] for node in self.description["nodes"]]

    @property
    def gateways(self) -> list[str]:
        """Each node's URL, node-1's first."""
        return [node["gateway"] for node in self.description["nodes"]]

    @property
    def init(self) -> dict[str, Any]:
        """init.json: `shares`, `threshold`, `root_token`."""
        found: dict[str, Any] = json.loads((self.folder / "init.json").read_text(encoding="utf-8"))
        return found

    @property
    def root_token(self) -> str:
        return str(self.init["root_token"])

    @property
    def dsn(self) -> str:
        """PostgreSQL's, as superuser."""
        return str(self.description["postgres"]["dsn"])

    def processes(self, node: str | None = None) -> list[Process]:
        """All processes, or those of one node."""
        return [
            Process(where, entry["name"], entry["address"], identity)
            for where, entry, identity in commands.processes(self.description)
            if node in (None, where)
        ]

    def process(self, node: str, name: str) -> Process:
        """One process. Raises LookupError."""
        for found in self.processes(node):
            if found.name == name:
                return found
        raise LookupError(f"{node} has no {name}")

    def kill(self, node: str, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal; returns at once, but after SIGKILL only when the process is gone."""
        self._signal([self.process(node, name)], number)

    def kill_node(self, node: str) -> None:
        """SIGKILL to every process of a node, in one breath."""
        self._signal(self.processes(node), signal.SIGKILL)

    def pause(self, node: str, name: str) -> None:
        """SIGSTOP."""
        self.kill(node, name, signal.SIGSTOP)

    def resume(self, node: str, name: str) -> None:
        """SIGCONT."""
        self.kill(node, name, signal.SIGCONT)

    def restart(self, node: str, name: str | None = None) -> None:
        """Start what is dead of a node (or one process of it) on its old ports; returns when it is ready.

        Raises DevError.
        """
        commands.ask(self.folder, {"start": [node]} if name is None else {"start_one": [node, name]})

    def stop(self) -> None:
        """Stop everything; the data stay."""
        commands.down(self.folder)

    def _signal(self, processes: list[Process], number: int) -> None:
        for process in processes:
            process.identity.signal(number)
        if number == signal.SIGKILL:
            wait_until_gone([process.identity for process in processes], 5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
