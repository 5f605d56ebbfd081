"""For build.sh: certificates for a seal replica, as a folder like a secret's; and the kubelet's question."""

from __future__ import annotations

import datetime as dt
import sys
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from strongbox.authority import Authority
from strongbox.setup.certificates import leaves


def make_secret(folder: Path) -> Path:
    """Files as they are in strongbox-seal-0-tls, readable by the image's user."""
    authority = Authority.create("test")
    leaf = dict(leaves("strongbox", 1))["strongbox-seal-0-tls"]
    pair = authority.issue(leaf, dt.timedelta(days=1))
    made = folder / "tls"
    made.mkdir(mode=0o755)
    folder.chmod(0o755)
    for name, content in (
        ("ca.crt", authority.pair.certificate), ("tls.crt", pair.certificate), ("tls.key", pair.key),
    ):  # fmt: skip
        (made / name).write_bytes(content)
        (made / name).chmod(0o644)
    return made


def ask(address: str, patience: float = 18.0) -> None:
    """Until both probes are answered with "serving". Raises grpc.RpcError."""
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("live", ""):
            deadline = time.monotonic() + patience
            while True:
                try:
                    answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
                    break
                except grpc.RpcError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)


if __name__ == "__main__":
    if sys.argv[1] == "--ask":
        ask(sys.argv[2])
        print("seal, sealed and without etcd: live and serving")
    else:
        print(make_secret(Path(sys.argv[1])))
