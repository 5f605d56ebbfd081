"""Seal processes over a real etcd, in the hands of a test: started, killed, asked by gRPC, stopped by pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import grpc

from strongbox.config import Settings
from strongbox.dev.certs import Certificates
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.seal.v1 import seal_service_pb2_grpc as rpc
from tests.support.etcd import EtcdCluster, EtcdTls, dying_with_parent, free_ports

ROOT = Path(__file__).resolve().parents[3]


class SealNode:
    """One seal process and a channel to it, as the operator."""

    def __init__(self, nodes: SealNodes, name: str, port: int) -> None:
        self.name, self.address = name, f"127.0.0.1:{port}"
        self._nodes = nodes
        self._process: subprocess.Popen[bytes] | None = None
        self.log = nodes.folder / f"{name}.log"
        self.settings = {"PEER_UNSEAL": "true"}
        self._channel: grpc.Channel | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ask(self) -> rpc.SealServiceStub:
        if self._channel is None:
            self._channel = self._nodes.channel(self.address)
        return rpc.SealServiceStub(self._channel)

    def start(self) -> None:
        with self.log.open("ab") as log, (self.log.with_suffix(".out")).open("wb") as out:
            self._process = subprocess.Popen(
                [*dying_with_parent(), sys.executable, "-m", "services.seal"],
                env={**os.environ, **self._nodes.environment(self), **_prefixed(self.settings)},
                cwd=ROOT, stdout=out, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def health(self) -> pb.GetHealthResponse:
        return self.ask.GetHealth(pb.GetHealthRequest(), timeout=2)

    def status(self) -> pb.GetSealStatusResponse:
        return self.ask.GetSealStatus(pb.GetSealStatusRequest(), timeout=2)

    def unseal(self, share: str, *, reset: bool = False) -> pb.UnsealResponse:
        return self.ask.Unseal(pb.UnsealRequest(share=share, reset=reset), timeout=5)

    def is_sealed(self) -> bool | None:
        """None while it does not answer."""
        try:
            return self.health().sealed
        except grpc.RpcError:
            return None

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self.kill()


class SealNodes:
    """An etcd and `count` seal processes; a context manager."""

    def __init__(self, count: int = 3, members: int = 1) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="strongbox-seal-")
        self.folder = Path(self._temporary.name)
        names = [f"node-{number}" for number in range(1, count + 1)]
        self.certificates = Certificates(self.folder / "certs")
        self.certificates.ensure(names)
        etcd = self.certificates.of(names[0], "etcd")
        self.tls = EtcdTls(self.certificates.authority, etcd.certificate, etcd.key)
        self.etcd = EtcdCluster(members, self.tls)
        self.all = [SealNode(self, name, port) for name, port in zip(names, free_ports(count), strict=True)]

    def __getitem__(self, index: int) -> SealNode:
        return self.all[index]

    def __enter__(self) -> Self:
        try:
            self.etcd.start()
            for node in self.all:
                node.start()
            self.wait(lambda: all(node.is_sealed() is not None for node in self.all))
            # Until each has its session.
            self.wait(lambda: sum(one.live for one in self[0].health().nodes) == len(self.all))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for node in self.all:
            node.close()
        self.etcd.stop()
        self._temporary.cleanup()

    def wait(self, is_so: Callable[[], Any], within: float = 15.0) -> float:
        """Seconds until `is_so()`; raises TimeoutError with the end of every log."""
        started = time.monotonic()
        while not is_so():
            if time.monotonic() - started > within:
                raise TimeoutError("\n".join(node.log.read_text()[-3000:] for node in self.all))
            time.sleep(0.05)
        return time.monotonic() - started

    def init(self, shares: int = 3, threshold: int = 2) -> pb.InitializeResponse:
        return self[0].ask.Initialize(pb.InitializeRequest(shares=shares, threshold=threshold), timeout=5)

    def unsealed(self) -> pb.InitializeResponse:
        """Init, and unseal by shares to different nodes; waits for all."""
        made = self.init()
        for node, share in zip(self.all, made.shares[: made.threshold], strict=False):
            node.unseal(share)
        self.wait(lambda: all(node.is_sealed() is False for node in self.all), 5)
        return made

    def logs(self) -> str:
        return "".join(node.log.read_text() for node in self.all)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of all nodes with this event."""
        found = (json.loads(line) for line in self.logs().splitlines() if line.startswith("{"))
        return [line for line in found if line.get("event") == event]

    def settings(self, node: str, service: str) -> Settings:
        """Those of another service's process of a node, to speak to seal as it does."""
        files = self.certificates.of(node, service)
        return Settings.model_validate({
            "node_id": node, "service": service, "etcd_endpoints": self.etcd.endpoints,
            "tls_cert": files.certificate, "tls_key": files.key, "tls_ca": self.certificates.authority,
            "seal_addresses": [one.address for one in self.all],
        })  # fmt: skip

    def channel(self, address: str) -> grpc.Channel:
        files = self.certificates.operator
        credentials = grpc.ssl_channel_credentials(
            self.certificates.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
        )
        options = (
            ("grpc.ssl_target_name_override", "seal.strongbox.internal"),
            ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 100), ("grpc.use_local_subchannel_pool", 1),
        )  # fmt: skip
        return grpc.secure_channel(address, credentials, options)

    def environment(self, node: SealNode) -> dict[str, str]:
        files = self.certificates.of(node.name, "seal")
        return _prefixed({
            "NODE_ID": node.name, "LISTEN": node.address, "ADVERTISE": node.address,
            "ETCD_ENDPOINTS": ",".join(self.etcd.endpoints), "DATA_DIR": str(self.folder),
            "SEAL_ADDRESSES": ",".join(one.address for one in self.all),
            "TLS_CERT": str(files.certificate), "TLS_KEY": str(files.key),
            "TLS_CA": str(self.certificates.authority), "PROFILE": "local",
        })  # fmt: skip


def _prefixed(settings: dict[str, str]) -> dict[str, str]:
    return {f"STRONGBOX_{name}": value for name, value in settings.items()}
