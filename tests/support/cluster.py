"""A whole StrongBox cluster for tests and benchmarks: started by its own command, damaged at will, stopped.

    with Cluster.start(nodes=3) as cluster:        # unsealed; `unseal=False` leaves it uninitialised
        rest = cluster.rest(cluster.root_token)    # through the first gateway

Nothing here knows the runner's code: it is used as people use it, by `python -m strongbox.dev` and the two
files that it writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.clients import NONE, GrpcClient, Patience, RestClient

ROOT = Path(__file__).resolve().parents[2]
_UP_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a node, as cluster.json tells it."""

    node: str
    name: str
    pid: int
    address: str

    def kill(self) -> None:
        """kill -9; nothing if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Cluster:
    """A running cluster; a context manager that stops it and deletes its data."""

    def __init__(
        self, folder: Path, nodes: int, base_port: int, hosts: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.nodes, self.base_port = folder, nodes, base_port
        self.hosts = hosts

    @classmethod
    def start(
        cls,
        nodes: int = 3,
        *,
        unseal: bool = True,
        postgres: bool = False,
        hosts: Mapping[str, Any] | None = None,
    ) -> Cluster:
        """A new cluster in a new folder, on free ports, when every node answers.

        `hosts`: where the nodes live (tests.support.lab); otherwise all are on the loopback interface.
        """
        folder = Path(tempfile.mkdtemp(prefix="strongbox-cluster-"))
        cluster = cls(folder, nodes, free_base_port(nodes), hosts)
        try:
            cluster.up(unseal=unseal, postgres=postgres)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def up(self, *, unseal: bool = True, postgres: bool = False, node: str = "") -> None:
        """`dev up --detach`; with `node`, start that dead node again. Raises RuntimeError with its words."""
        flags = ["--data", str(self.folder), "--detach"]
        flags += ["--node", node] if node else self._flags_of_all(postgres)
        self._dev("up", *flags, *(["--unseal"] if unseal else []))

    def _flags_of_all(self, postgres: bool) -> list[str]:
        flags = ["--nodes", str(self.nodes), "--base-port", str(self.base_port)]
        if self.hosts is not None:
            where = self.folder / "hosts.json"
            where.write_text(json.dumps(self.hosts))
            flags += ["--hosts", str(where)]
        return flags if postgres else [*flags, "--no-postgres"]

    def down(self) -> None:
        """`dev down`: no process is left; the data stays."""
        self._dev("down", "--data", str(self.folder))

    def stop(self) -> None:
        """Down, whatever happened, and the data deleted."""
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self.down()
        for process in self.processes():
            process.kill()
        if not os.environ.get("STRONGBOX_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _dev(self, *command: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "strongbox.dev", *command],
            cwd=ROOT, capture_output=True, text=True, timeout=_UP_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"dev {command[0]} failed: {done.stdout[-2000:]}{done.stderr[-4000:]}")

    def _read(self, name: str) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads((self.folder / name).read_text()))
        return {}

    @property
    def description(self) -> dict[str, Any]:
        """cluster.json, read anew: pids change when a node is started again."""
        return self._read("cluster.json")

    @property
    def node_ids(self) -> list[str]:
        return [str(node["id"]) for node in self.description["nodes"]]

    @property
    def gateways(self) -> list[str]:
        """URLs, in the order of the nodes."""
        return [str(node["gateway"]) for node in self.description["nodes"]]

    def processes(self) -> list[Process]:
        """Every process of every node."""
        return [
            Process(str(node["id"]), str(one["name"]), int(one["pid"]), str(one.get("address", "")))
            for node in self.description.get("nodes", [])
            for one in node["processes"]
        ]

    def process(self, node: str, name: str) -> Process:
        """Raises LookupError."""
        for process in self.processes():
            if (process.node, process.name) == (node, name):
                return process
        raise LookupError(f"{node} has no process {name}")

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes()]

    @property
    def root_token(self) -> str:
        """From init.json: only a cluster that was started with `unseal` has it."""
        return str(self._read("init.json")["root_token"])

    @property
    def shares(self) -> list[str]:
        return [str(share) for share in self._read("init.json")["shares"]]

    def rest(self, token: str = "", node: int = 0, patience: Patience = NONE) -> RestClient:
        """A REST client of that node's gateway."""
        return RestClient(self.gateways[node], token, patience)

    def grpc(self, token: str = "", node: int = 0, patience: Patience = NONE) -> GrpcClient:
        """A native gRPC client of that node's gateway."""
        return GrpcClient(self.gateways[node].removeprefix("http://"), token, patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_base_port(nodes: int) -> int:
    """A base such that base + 1 … base + nodes are free now. Raises OSError when none is found."""
    for _ in range(200):
        base = random.randrange(12000, 30000, 10)  # below the kernel's own choice, which starts at 32768
        if _are_free(range(base + 1, base + nodes + 1)):
            return base
    raise OSError("no free ports")


def _are_free(ports: Sequence[int]) -> bool:
    with contextlib.ExitStack() as held:
        for port in ports:
            one = held.enter_context(socket.socket())
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


_shared: list[Cluster] = []


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes, unsealed, for all tests of a folder that damage nothing; use paths of your own.

    Whoever imports it ends it by `end_shared` when its folder is left: idle clusters take a core from others.
    """
    with Cluster.start(3, postgres=True) as running:
        _shared.append(running)
        yield running


def end_shared() -> None:
    """Stop what `cluster` started."""
    while _shared:
        _shared.pop().stop()
