"""The cluster under attack: three hosts, a relay before one node's etcd, a small disk under another."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from strongbox.dev.processes.children import Identity
from strongbox.dev.runner import runner_socket
from tests.robustness import probe
from tests.robustness.disks import Disks
from tests.robustness.door import Answer, Rest
from tests.robustness.environment import environment
from tests.robustness.postgres import DATABASE_ROLES, Postgres
from tests.robustness.side_processes import start_probe, start_relay, start_undertaker
from tests.support.clients import Patience
from tests.support.cluster import Cluster, free_base_port
from tests.support.etcd_door import EtcdDoor
from tests.support.lab import Lab

NODES = (0, 1, 2)
NAMES = ("etcd", "seal", "kv", "auth", "lease", "audit", "envoy")
RELAYED = 1  # the node whose services reach their own etcd through the relay
SMALL_DISK = 2  # the node whose disk gets filled
_SMALL = "900m"  # etcd's log and file (twice while it is defragmented), and room to spare
_LARGE = "4g"
QUOTA = 128 << 20  # bytes of each member
# etcd's own log grows by whatever is written until its next snapshot, so that comes soon here.
_ETCD_FLAGS = {"quota-backend-bytes": str(QUOTA), "snapshot-count": "2000"}
_RELAY_PORT = 19_999


class Stage:
    """A context manager. Nodes are numbered from 0; `plant` names a planted bug."""

    def __init__(self, plant: str = "") -> None:
        self.lab = Lab()
        self.folder = Path(tempfile.mkdtemp(prefix="strongbox-robustness-"))
        self._plant = plant
        self._relay: subprocess.Popen[str] | None = None
        self._disks = Disks(self.folder)
        self._undertaker: subprocess.Popen[bytes] | None = None
        self._sealed_at = 0.0
        self.killed: list[str] = []  # names of processes, each time that one was killed
        self.paused: list[tuple[int, str, float]] = []  # node, name, seconds: each time that one stood still
        self.violations: list[str] = []  # what a fault saw that must not be
        self.sealed: list[tuple[float, float]] = []  # from the answer of `seal` to the first share

    def __enter__(self) -> Self:
        try:
            self._undertaker = start_undertaker(self.folder)
            self._set()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(AttributeError):
            self.postgres.thaw()  # what stands still outlives its server
        with contextlib.suppress(AttributeError, RuntimeError, subprocess.TimeoutExpired):
            self.cluster.down()
        for process in (self._undertaker, self._relay):
            if process is not None:
                process.kill()
                process.wait()
        self._disks.unmount(keep_logs=bool(os.environ.get("STRONGBOX_KEEP")))
        self.lab.__exit__(None, None, None)
        if not os.environ.get("STRONGBOX_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_planted(self) -> bool:
        """Whether it bears a planted bug."""
        return bool(self._plant)

    def node(self, number: int) -> str:
        """Its name."""
        return f"node-{number + 1}"

    def gateway(self, number: int) -> str:
        """Its URL."""
        return self._gateways[number]

    def pid(self, number: int, name: str) -> int:
        """Of a process of a node."""
        return self._identity(number, name).pid

    def signal(self, number: int, name: str, which: signal.Signals) -> None:
        """Send a signal to one process, if it lives."""
        self.killed += [name] * (which == signal.SIGKILL)
        self._identity(number, name).signal(which)

    def signal_all(self, number: int, which: signal.Signals) -> None:
        """Send a signal to everything of a node, in one breath."""
        self.killed += NAMES if which == signal.SIGKILL else ()
        for identity in [self._identity(number, name) for name in NAMES]:
            identity.signal(which)

    def start_dead(self, *numbers: int) -> None:
        """Start again what is dead of these nodes (of all, unless named). Raises RuntimeError."""
        for number in numbers or NODES:
            answer = runner_socket.ask(self.folder, {"start": [self.node(number)]})
            if "error" in answer:
                raise RuntimeError(f"{self.node(number)} does not start: {answer['error']}")

    def leader(self) -> int:
        """The node whose etcd leads."""
        return int(self.etcd.leader().removeprefix("node-")) - 1

    def holder(self, duty: str) -> int | None:
        """The node that holds a duty, as any node's health tells it."""
        for number in NODES:
            told = self._call(number, "", "GET", "/v1/sys/health").body.get("leaders", {}).get(duty, "")
            if told:
                return int(told.removeprefix("node-")) - 1
        return None

    def is_sealed(self, number: int) -> bool:
        """Whether this node says of itself that it holds no key."""
        return self._call(number, "", "GET", "/v1/sys/health").body.get("sealed") is True

    def peer_url(self, number: int) -> str:
        """Where the other members reach this node's etcd."""
        layout = json.loads((self.folder / "layout.json").read_text())
        node = self.node(number)
        return f"https://{layout['hosts'][node]['address']}:{layout['kept_ports'][node]['etcd-peer']}"

    def seal(self) -> None:
        """Seal the cluster; `sealed` says from when to when nothing may succeed."""
        for number in NODES:
            if self._call(number, self.cluster.root_token, "POST", "/v1/sys/seal", {}).status == 200:
                self._sealed_at = time.monotonic()
                return
        raise RuntimeError("no node takes the order to seal")

    def unseal(self) -> None:
        """Undo `seal`."""
        self.sealed.append((self._sealed_at, time.monotonic()))
        self.give_shares()

    def give_shares(self) -> None:
        """Unseal as people do: the shares, to different nodes."""
        for number, share in enumerate(self.cluster.shares[:2]):
            deadline = time.monotonic() + 30
            while True:
                answer = self._call(number, "", "POST", "/v1/sys/unseal", {"share": share})
                if answer.status == 200 or answer.reason == "REPEATED_SHARE":
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"a share is not taken: {answer.status} {answer.reason}")
                time.sleep(0.2)

    def _call(self, number: int, token: str, method: str, path: str, body: Any = None) -> Answer:
        rest = Rest(self._gateways[number])
        try:
            return rest.call(token, method, path, body)
        finally:
            rest.close()

    def relay(self, command: str) -> None:
        """`delay SECONDS PATH…`, `hold PATH…` or `release` (tests.robustness.relay)."""
        assert self._relay is not None and self._relay.stdin is not None
        self._relay.stdin.write(command + "\n")
        self._relay.stdin.flush()

    def skew(self, number: int, seconds: float) -> None:
        """Have a node's wall clock jump by so much from the true time."""
        (self.folder / self.node(number) / "clock-offset").write_text(str(seconds))

    def fill_disk(self) -> None:
        """Leave no byte free on the small disk."""
        ballast = self.folder / self.node(SMALL_DISK) / "ballast"
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(size))

    def free_disk(self) -> None:
        (self.folder / self.node(SMALL_DISK) / "ballast").unlink(missing_ok=True)

    def unready(self) -> list[str]:
        """What is not as it should be: a node that is not ready, or whose services do not serve."""
        return [trouble for number in NODES for trouble in self._troubles(number)]

    def wait_recovered(self, seconds: float) -> None:
        """Until every node serves everything. Raises TimeoutError with what does not."""
        deadline = time.monotonic() + seconds
        while troubles := self.unready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not recovered after {seconds:.0f} s: {'; '.join(troubles)}")
            time.sleep(0.1)

    def restart_everything(self) -> None:
        """Down and up again, and unsealed."""
        self.cluster.down()
        with environment():
            self.cluster.up(postgres=True)

    @contextlib.contextmanager
    def probes(self) -> Iterator[None]:
        """The suite's own duty (tests.robustness.probe), a candidate on each host."""
        started = [self._start_probe(number) for number in NODES]
        self._probes = [Identity.of(process.pid) for process in started]
        try:
            yield
        finally:
            for process in started:
                process.kill()
                process.wait()

    def probe_holder(self) -> int | None:
        """The host whose probe is in office."""
        rows = self.etcd.range(probe.OFFICE).kvs
        return int(rows[0].value.decode().rpartition("-")[2]) - 1 if rows else None

    def signal_probe(self, number: int, which: signal.Signals) -> None:
        self._probes[number].signal(which)

    def _start_probe(self, number: int) -> subprocess.Popen[bytes]:
        node, told = self.node(number), self.cluster.description
        members = [url.removeprefix("https://") for url in told["etcd"]]
        own_first = [members.pop(number), *members] if number != RELAYED else self._relayed()
        return start_probe(self.lab, number + 1, node, self.folder, [str(told["certs"]), ",".join(own_first)])

    def _troubles(self, number: int) -> list[str]:
        root = self.cluster.root_token
        asked = {
            "ready": self._call(number, "", "GET", "/v1/sys/ready"),
            "kv": self._call(number, root, "GET", "/v1/secrets-list/none"),
            "auth": self._call(number, root, "GET", "/v1/tokens/self"),
            "lease": self._call(number, root, "GET", "/v1/leases?path=secret/none"),
            "audit": self._call(number, root, "GET", "/v1/audit?limit=1"),
        }
        if all(answer.status == 200 for answer in asked.values()):  # last, since each makes a role
            asked["PostgreSQL"] = self._call(number, root, "GET", f"/v1/dynamic-postgres/{DATABASE_ROLES[0]}")
        return [
            f"{self.node(number)} {what}: {answer.status} {answer.reason} {answer.body.get('message', '')}"
            for what, answer in asked.items()
            if answer.status != 200
        ]

    def _identity(self, number: int, name: str) -> Identity:
        for node in self.cluster.description["nodes"]:
            if node["id"] == self.node(number):
                for entry in node["processes"]:
                    if entry["name"] == name:
                        return Identity(entry["pid"], entry["started"])
        raise LookupError(f"{self.node(number)} has no {name}")

    def _set(self) -> None:
        self.lab.__enter__()
        for number in NODES:
            self._disks.mount(self.node(number), _SMALL if number == SMALL_DISK else _LARGE)
        if self._plant:
            (self.folder / "plant").write_text(self._plant)
        hosts = self.lab.hosts()
        for number in NODES:
            hosts[self.node(number)]["etcd_flags"] = _ETCD_FLAGS
        hosts[self.node(RELAYED)]["etcd_via"] = self._relayed()
        self._relay = self._start_relay()
        self.cluster = Cluster(self.folder, 3, free_base_port(3), hosts)
        with environment():
            self.cluster.up(postgres=True)
        self._gateways = self.cluster.gateways
        self.etcd = EtcdDoor(self.cluster)
        self.postgres = Postgres(self.cluster)
        with self.cluster.rest(self.cluster.root_token, 0, Patience()) as root:
            self.postgres.prepare(root)

    def _relayed(self) -> list[str]:
        """Where that host's processes find the members: its own first."""
        return [f"{self.lab.address(RELAYED + 1)}:{_RELAY_PORT - path}" for path in range(len(NODES))]

    def _start_relay(self) -> subprocess.Popen[str]:
        nodes = [RELAYED, *(number for number in NODES if number != RELAYED)]
        pairs = [
            f"{listen}={self.node(number)}" for listen, number in zip(self._relayed(), nodes, strict=True)
        ]
        return start_relay(self.lab, RELAYED + 1, self.folder, pairs)
