"""Every name that a process dials, by the manifests, is in the certificate of what answers there.

Tried by handshakes, without and with gRPC, whose rules for names differ.
"""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import grpc
import pytest

from strongbox.authority import Authority, Leaf, Pair
from strongbox.config import SERVICES
from strongbox.setup.certificates import leaves
from tests.k8s.manifests import OVERLAYS, containers, environment, named, pods

COUNTS = {"dev": 1, "prod": 3, "prod-cert-manager": 3}


@cache
def authority() -> Authority:
    return Authority.create("test")


def dialled(overlay: str) -> Iterator[tuple[str, str]]:
    """(host, service) of every address in settings, flags and environments that leads to one of our pods."""
    texts: list[str] = []
    for name, pod in pods(overlay):
        replicas = [f"{name.partition('/')[2]}-{n}" for n in range(COUNTS[overlay])]
        for container in containers(pod):
            told = [*container.get("args", ()), *map(str, environment(overlay, container).values())]
            texts += [text.replace("$(POD_NAME)", replica) for text in told for replica in replicas]
    for text in texts:
        for part in text.replace("=", ",").split(","):
            host = part.removeprefix("https://").rpartition(":")[0]
            if host.startswith("strongbox-"):
                yield host, host.partition(".")[2].partition(".")[0] or host


def leaf_of(overlay: str, host: str, service: str) -> Leaf:
    """Whom the certificate is for of the pod behind a name: ours, or as cert-manager is told."""
    (secret,) = [
        name
        for name, leaf in leaves("strongbox", 3)
        if name in (f"{service}-tls", f"{host.partition('.')[0]}-tls")
        or (service == host == "strongbox-seal" and leaf.identity == "seal/0")
    ]
    if overlay != "prod-cert-manager":
        return dict(leaves("strongbox", 3))[secret]
    spec = named(overlay, "Certificate", secret.removesuffix("-tls"))["spec"]
    ours = dict(leaves("strongbox", 3))[secret]
    return Leaf(ours.name, ours.identity, tuple(spec["dnsNames"]), tuple(spec["ipAddresses"]))


@cache
def issued(leaf: Leaf) -> Pair:
    return authority().issue(leaf, dt.timedelta(hours=1))


def shake_hands(pair: Pair, host: str, tmp_path: Path) -> None:
    """As OpenSSL does. Raises ssl.SSLCertVerificationError."""
    (tmp_path / "crt").write_bytes(pair.certificate + pair.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "crt")
    asking = ssl.create_default_context(cadata=authority().pair.certificate.decode())
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(back, there, server_hostname=host)
    server = serving.wrap_bio(there, back, server_side=True)
    for _ in range(5):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def call_by_grpc(pair: Pair, host: str) -> None:
    """As gRPC does. Raises grpc.FutureTimeoutError when the server is not believed."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pair.key, pair.certificate)]))
    server.start()
    credentials = grpc.ssl_channel_credentials(authority().pair.certificate)
    options = [("grpc.ssl_target_name_override", host)]
    try:
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
            grpc.channel_ready_future(channel).result(timeout=10)
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_name_that_is_dialled_is_in_the_certificate_of_what_answers(
    overlay: str, tmp_path: Path
) -> None:
    found = {*dialled(overlay)}
    # The gateway dials each service by its name, every process etcd and seal by that of each pod.
    assert {(f"strongbox-{name}",) * 2 for name in SERVICES} <= found
    for count in range(COUNTS[overlay]):
        assert (f"strongbox-etcd-{count}.strongbox-etcd", "strongbox-etcd") in found
        assert (f"strongbox-seal-{count}.strongbox-seal", "strongbox-seal") in found
    for host, service in sorted(found):
        leaf = leaf_of(overlay, host, service)
        assert host in leaf.hosts, "letter by letter: what a wildcard is worth differs"
        shake_hands(issued(leaf), host, tmp_path)
        call_by_grpc(issued(leaf), host)


def test_a_name_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A check that can fail."""
    leaf = Leaf("etcd", "etcd", ("strongbox-etcd",))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(issued(leaf), "strongbox-etcd-0.strongbox-etcd", tmp_path)
