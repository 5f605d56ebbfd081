"""New certificates, and a restart of everything in the order of the manifests: no request of a client fails.

The certificates of the first renewal are good for seconds only. When they have run out all is restarted,
so every connection is made anew: a process that still bore one of them, or one of before, would be refused.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import ssl
import time
from collections.abc import Iterator

import pytest

from strongbox.authority import serial_of
from strongbox.dev.certs import Certificates
from strongbox.dev.processes.children import Identity, wait_until_gone
from strongbox.dev.runner import runner_socket
from tests.k8s.manifests import workloads
from tests.robustness.load import Load
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.expect import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.heavy, pytest.mark.timeout(420)]
_WRITES = 10
SHORT = 45  # seconds a certificate of the first renewal is good


@pytest.fixture(scope="module")
def rolling() -> Iterator[Cluster]:
    """Three nodes for this module alone."""
    with Cluster.start(3) as running:
        yield running


def token_of(cluster: Cluster) -> str:
    rules = [{"path": "secret/load/*", "capabilities": ["read", "write"]}]
    with cluster.rest(cluster.root_token, 2, Patience()) as root:
        root.call("PUT", "/v1/policies/load", {"rules": rules})
        return str(root.call("POST", "/v1/tokens", {"policies": ["load"]})["token"])


def upgrade_order() -> list[str]:
    """The workloads by what the manifests say."""
    found = workloads("prod")
    ranked = {
        int(one["metadata"]["annotations"]["strongbox/upgrade-order"]): name for name, one in found.items()
    }
    return [ranked[number].replace("gateway", "envoy") for number in sorted(ranked)]


def restart(cluster: Cluster, node: str, name: str) -> None:
    """As Kubernetes would: SIGTERM, wait, start, wait until it is ready, and a moment (minReadySeconds)."""
    process = cluster.process(node, name)
    identity = Identity.of(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    assert wait_until_gone([identity], 15), f"{node}'s {name} does not end"
    assert runner_socket.ask(cluster.folder, {"start_one": [node, name]}) == {"ok": True}
    if name == "seal":
        number = cluster.node_ids.index(node)
        with cluster.rest(node=number) as rest:
            eventually(30, lambda: _require_unsealed(rest.call("GET", "/v1/sys/health")))
    time.sleep(1.0)


def _require_unsealed(health: dict[str, object]) -> None:
    assert health["sealed"] is False


def test_certificates_are_renewed_under_load_and_everything_restarts_in_the_manifests_order(
    rolling: Cluster,
) -> None:
    certificates = Certificates(rolling.folder / "certs")
    token = token_of(rolling)
    with Load(rolling, token, clients=3, nodes=[0, 1]) as load:
        load.wait_for(_WRITES)
        started = time.monotonic()
        certificates.rotate(rolling.node_ids, dt.timedelta(seconds=SHORT))
        eventually(20, lambda: _require_served(rolling, certificates))
        load.wait_for(_WRITES)
        certificates.rotate(rolling.node_ids)
        eventually(20, lambda: _require_served(rolling, certificates))
        load.wait_for(_WRITES, 60)
        time.sleep(max(0.0, started + SHORT + 1 - time.monotonic()))
        load.wait_for(_WRITES, 60)
        for name in upgrade_order():
            if name == "envoy":
                break
            for node in rolling.node_ids:
                restart(rolling, node, name)
                load.wait_for(2, 60)
    assert load.failures == []
    # A gateway that goes is led around by Kubernetes' service; here by clients that use the two others.
    for gone, node in enumerate(rolling.node_ids):
        others = [number for number in range(3) if number != gone]
        with Load(rolling, token, clients=2, nodes=others) as beside:
            beside.wait_for(2, 60)
            restart(rolling, node, "envoy")
            beside.wait_for(2, 60)
        assert beside.failures == []
    with rolling.rest(rolling.root_token, 1, Patience()) as root:
        load.require_exactly_once(root)


def _require_served(cluster: Cluster, certificates: Certificates) -> None:
    """Every service and every etcd member shows the newest certificate to whoever comes now."""
    context = ssl.create_default_context(cafile=str(certificates.authority))
    context.load_cert_chain(certificates.operator.certificate, certificates.operator.key)
    context.check_hostname = False
    for process in cluster.processes():
        if process.name in ("envoy", "postgres"):
            continue
        files = certificates.of(process.node, process.name)
        host, _, port = process.address.rpartition(":")
        shown = _shown(context, host, int(port))
        assert serial_of(shown) == serial_of(files.certificate.read_bytes()), f"{process.node} {process.name}"


def _shown(context: ssl.SSLContext, host: str, port: int) -> bytes:
    import socket

    with socket.create_connection((host, port), timeout=3) as plain:
        plain.settimeout(3)
        with context.wrap_socket(plain, server_hostname=host) as connection:
            found = connection.getpeercert(binary_form=True)
    assert found
    return ssl.DER_cert_to_PEM_cert(found).encode()
