"""kill -9 of any one process: no request of a client fails, no write is lost, none is applied twice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.robustness.load import Load
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.expect import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
_WRITES = 20  # acknowledged before the kill and after it: a run that did nothing proves nothing
_AFTER = 4.0  # seconds: health checks, sessions and elections have all seen it by then


@pytest.fixture(scope="module")
def damaged() -> Iterator[Cluster]:
    """Three nodes for this module alone; what is killed is started again after each test."""
    with Cluster.start(3) as running:
        yield running


@pytest.mark.parametrize("name", ["kv", "auth", "seal", "lease", "audit"])
def test_a_killed_service_process_fails_no_request(damaged: Cluster, name: str) -> None:
    """Of the node whose gateway most of the clients use."""
    _kill_under_load(damaged, name, nodes=[0, 1])


def test_a_killed_gateway_fails_no_request_at_the_others(damaged: Cluster) -> None:
    _kill_under_load(damaged, "envoy", nodes=[1, 2])


def _kill_under_load(cluster: Cluster, name: str, nodes: list[int]) -> None:
    token = _token(cluster)
    node = cluster.node_ids[0]
    with Load(cluster, token, clients=4, nodes=nodes) as load:
        load.wait_for(_WRITES)
        cluster.process(node, name).kill()
        time.sleep(_AFTER)
        load.wait_for(_WRITES)
    try:
        assert load.failures == []
        with cluster.rest(cluster.root_token, 1, Patience()) as root:
            load.require_exactly_once(root)
    finally:
        _start_again(cluster, node)


def _start_again(cluster: Cluster, node: str) -> None:
    cluster.up(node=node, unseal=False)
    with cluster.rest(node=0) as rest:
        eventually(30, rest.call, "GET", "/v1/sys/ready")


def _token(cluster: Cluster) -> str:
    rules = [{"path": "secret/load/*", "capabilities": ["read", "write"]}]
    with cluster.rest(cluster.root_token, 2, Patience()) as root:
        root.call("PUT", "/v1/policies/load", {"rules": rules})
        return str(root.call("POST", "/v1/tokens", {"policies": ["load"]})["token"])
