"""Long trials: duties change hands in time, every time; a rolling restart is seen by nobody."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Iterator

import pytest

from strongbox.dev.processes.children import Identity, started_at, wait_until_gone
from strongbox.dev.runner import runner_socket
from tests.robustness.load import Load
from tests.robustness.outage import wait_for_successor
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.expect import eventually

pytestmark = [pytest.mark.heavy, pytest.mark.cluster, pytest.mark.timeout(1800)]
_TRIALS = 50
_NEW_HOLDER_SECONDS = 2.0
_RULES = [{"path": "secret/load/*", "capabilities": ["read", "write"]}]
_ORDER = ("seal", "kv", "auth", "lease", "audit", "etcd", "envoy")


@pytest.fixture
def cluster_of_three() -> Iterator[Cluster]:
    with Cluster.start(3) as running:
        yield running


def _token(cluster: Cluster) -> str:
    with cluster.rest(cluster.root_token, 0, Patience()) as root:
        root.call("PUT", "/v1/policies/load", {"rules": _RULES})
        return str(root.call("POST", "/v1/tokens", {"policies": ["load"]})["token"])


def _wait_ready(cluster: Cluster) -> None:
    for node in range(3):
        with cluster.rest(cluster.root_token, node) as rest:
            for path in ("sys/ready", "secrets-list", "tokens/self", "leases?path=secret/x", "audit?limit=1"):
                eventually(60, rest.call, "GET", f"/v1/{path}")


def test_fifty_kills_of_the_audit_duty_s_holder(cluster_of_three: Cluster) -> None:
    cluster = cluster_of_three
    took: list[float] = []
    with Load(cluster, _token(cluster), clients=4, nodes=[0, 1, 2]) as load:
        for _ in range(_TRIALS):
            load.wait_for(10)
            seconds, before, after = wait_for_successor(cluster, "audit")
            assert after["term"] > before["term"]
            took.append(seconds)
            _start(cluster, str(before["leaders"]["audit"]))
            _wait_ready(cluster)
    print(f"new holder after {statistics.median(took):.2f} s (median), {max(took):.2f} s (at most)")
    assert load.failures == []
    with cluster.rest(cluster.root_token, 1, Patience()) as root:
        load.require_exactly_once(root)
    assert max(took) <= _NEW_HOLDER_SECONDS, sorted(took)[-5:]


def test_a_rolling_restart_of_every_process_fails_no_request(cluster_of_three: Cluster) -> None:
    """Each is told to stop and started again; clients of a gateway that stops have left it first."""
    cluster, failures, writes = cluster_of_three, list[str](), 0
    token = _token(cluster)
    for node, name in [(node, name) for node in cluster.node_ids for name in _ORDER]:
        index = cluster.node_ids.index(node)
        nodes = [n for n in range(3) if n != index] if name == "envoy" else [0, 1, 2]
        with Load(cluster, token, clients=4, nodes=nodes) as load:
            load.wait_for(5)
            _restart(cluster, node, name)
            _wait_ready(cluster)
            load.wait_for(5)
        failures += [f"{node} {name}: {failure}" for failure in load.failures]
        writes += load.acknowledged
        if not load.failures:
            with cluster.rest(cluster.root_token, (index + 1) % 3, Patience()) as root:
                load.require_exactly_once(root)
    print(f"21 processes restarted, {writes} writes acknowledged, {len(failures)} requests failed")
    assert failures == []


def _restart(cluster: Cluster, node: str, name: str) -> None:
    pid = cluster.process(node, name).pid
    identity = Identity(pid, started_at(pid) or -1)
    identity.signal(signal.SIGTERM)
    assert wait_until_gone([identity], 15.0), f"{node}'s {name} does not stop"
    _start(cluster, node)
    time.sleep(0.5)


def _start(cluster: Cluster, node: str) -> None:
    answer = runner_socket.ask(cluster.folder, {"start": [node]})
    assert "error" not in answer, answer
