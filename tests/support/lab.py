"""Three hosts on one machine: network namespaces, which can be cut off from each other and from clients.

    with Lab() as lab, Cluster.start(3, hosts=lab.hosts()) as cluster:
        lab.cut(1)            # node-1 hears none of the others any more; its clients still reach it
        lab.heal()

Each host has two links: one to its peers (etcd, services), one to clients (its gateway). A partition moves a
link to a second, empty bridge; packets vanish in one direction by a wrong permanent neighbour entry. This
process has a link to either network, as an operator's machine would. Everything hangs on four processes
that hold the namespaces, and is gone when they are, however this process ends.

Needs root and ip(8), unshare(1), nsenter(1): without them `require()` says so. Nothing is skipped.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from tests.support.etcd import dying_with_parent

_NODES = (1, 2, 3)
_OPERATOR = 9
_GUEST = 66


class NoNamespaces(Exception):
    """This machine cannot have hosts in network namespaces; the text says why."""


def require() -> None:
    """Raises NoNamespaces when hosts cannot be made here."""
    missing = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        raise NoNamespaces(f"network namespaces need {', '.join(missing)} (iproute2, util-linux)")
    if os.geteuid() != 0:
        raise NoNamespaces("network namespaces need root")
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise NoNamespaces(f"network namespaces are refused here: {tried.stderr.strip()}")


class Lab:
    """A context manager; nodes are named by their number, from 1."""

    def __init__(self) -> None:
        require()
        subnet = random.SystemRandom().randrange(1, 127) * 2
        self._peers, self._clients = (f"10.{200 + os.getpid() % 50}.{subnet + n}" for n in (0, 1))
        self._name = f"sb{os.getpid() % 1_000_000}"
        self._holders: dict[int, subprocess.Popen[bytes]] = {}
        self._lies: list[tuple[int, int]] = []
        self.apart: tuple[int, ...] = ()  # the nodes that are cut off from their peers

    def __enter__(self) -> Self:
        try:
            for number in (0, *_NODES):
                self._holders[number] = self._hold()
            self._wire()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What `dev up --hosts` takes: each node in its namespace, PostgreSQL at this machine's address."""
        found: dict[str, dict[str, Any]] = {
            f"node-{n}": {"address": self.address(n), "door": f"{self._clients}.{n}", "enter": self.enter(n)}
            for n in _NODES
        }
        return {**found, "postgres": {"address": self.address(_OPERATOR)}}

    def address(self, node: int) -> str:
        """Where its peers reach it."""
        return f"{self._peers}.{node}"

    def enter(self, node: int) -> list[str]:
        """What a command begins with that is to run on that host."""
        return ["nsenter", f"--net=/proc/{self._holders[node].pid}/ns/net"]

    def guest(self) -> str:
        """A second address of this process towards the gateways: that of somebody else."""
        address = f"{self._clients}.{_GUEST}"
        self._ip([f"addr replace {address}/24 dev {self._name}c"], [])
        return address

    def cut(self, *nodes: int) -> None:
        """Cut these off from their peers, together: they still hear each other."""
        self._switch(f"link set p{node} master lp1" for node in nodes)
        self.apart = nodes

    def cut_clients(self, node: int) -> None:
        """Cut a node's gateway off from its clients; its peers still hear it."""
        self._switch([f"link set c{node} master lc1"])

    def deafen(self, sender: int, receiver: int) -> None:
        """What `sender` sends to `receiver` vanishes from now on; the other direction works."""
        lie = f"neigh replace {self.address(receiver)} lladdr 02:00:00:00:de:ad dev eth0 nud permanent"
        self._ip([lie], self.enter(sender))
        self._lies.append((sender, receiver))

    def heal(self) -> None:
        """Undo all of it."""
        self._switch(f"link set {kind}{n} master l{kind}0" for n in _NODES for kind in "pc")
        for sender, receiver in self._lies:
            self._ip([f"neigh del {self.address(receiver)} dev eth0"], self.enter(sender))
        self._lies.clear()
        self.apart = ()

    def _hold(self) -> subprocess.Popen[bytes]:
        ours = os.readlink("/proc/self/ns/net")
        holder = subprocess.Popen(
            [*dying_with_parent(), "unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{holder.pid}/ns/net") == ours:
            if time.monotonic() > deadline or holder.poll() is not None:
                raise NoNamespaces("a network namespace could not be made")
            time.sleep(0.01)
        return holder

    def _wire(self) -> None:
        bridges = ("lp0", "lp1", "lc0", "lc1")
        self._switch(f"link add {name} type bridge forward_delay 0" for name in bridges)
        self._switch(f"link set {name} up" for name in bridges)
        for node in _NODES:
            self._link(node, self._holders[node].pid, ("eth0", "eth1"), self.enter(node))
            self._ip(["link set lo up"], self.enter(node))
        self._link(_OPERATOR, os.getpid(), (f"{self._name}p", f"{self._name}c"), [])

    def _link(self, number: int, pid: int, names: tuple[str, str], enter: list[str]) -> None:
        for kind, name, subnet in zip("pc", names, (self._peers, self._clients), strict=True):
            self._switch([f"link add {kind}{number} type veth peer name {name} netns {pid}"])
            self._switch([f"link set {kind}{number} master l{kind}0", f"link set {kind}{number} up"])
            self._ip([f"addr add {subnet}.{number}/24 dev {name}", f"link set {name} up"], enter)

    def _switch(self, lines: Iterable[str]) -> None:
        self._ip(lines, self.enter(0))

    def _ip(self, lines: Iterable[str], enter: list[str]) -> None:
        done = subprocess.run(
            [*enter, "ip", "-batch", "-"],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
        if done.returncode:
            raise NoNamespaces(f"ip refused: {done.stderr.strip()}")
