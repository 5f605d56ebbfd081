"""The gateway when replicas die, come back, or are not who they should be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import Gateway, running_gateway


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with running_gateway(tmp_path) as running:
        yield running


def test_no_request_fails_when_the_own_nodes_replica_dies_and_it_is_used_again_later(
    gateway: Gateway,
) -> None:
    statuses: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            statuses.append(gateway.rest("GET", "/v1/secrets/a").status)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for each in askers:
        each.start()
    time.sleep(0.3)
    gateway.stop_service("node-1", "kv")
    time.sleep(1.5)
    done.set()
    for each in askers:
        each.join()
    assert set(statuses) == {200}
    assert gateway.rest("GET", "/v1/secrets/a").json["value"] != "node-1"
    gateway.start_service("node-1", "kv")
    deadline = time.monotonic() + 5
    while gateway.rest("GET", "/v1/secrets/a").json["value"] != "node-1":
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("late", [1, 2])
def test_a_replica_is_out_of_use_when_it_is_late_twice_and_after_one_time_for_two_seconds_at_most(
    gateway: Gateway, late: int
) -> None:
    own = ("node-1", "kv")
    while gateway.world.checks[own] < 3:  # the very first one decides alone
        time.sleep(0.05)
    gateway.world.late[own] = late
    passed_over: list[float] = []
    until = time.monotonic() + 3.1 + late * 2.1  # a check each second or so, and its timeout
    while time.monotonic() < until:
        if gateway.rest("GET", "/v1/secrets/a").json["value"] != "node-1":
            passed_over.append(time.monotonic())
        time.sleep(0.02)
    assert gateway.world.late[own] == 0
    if late == 2:
        assert passed_over
    elif passed_over:  # gRPC's own DEADLINE_EXCEEDED came before Envoy's time-out
        assert passed_over[-1] - passed_over[0] < 2.0


def test_health_is_the_own_nodes_or_nobodys(gateway: Gateway) -> None:
    assert gateway.rest("GET", "/v1/sys/health").json["node_id"] == "node-1"
    gateway.stop_service("node-1", "seal")
    answer = gateway.rest("GET", "/v1/sys/health")
    assert (answer.status, answer.reason) == (503, "UNAVAILABLE")
    assert gateway.rest("POST", "/v1/sys/unseal", b"{}").status == 200, "any seal replica may unseal"


def test_a_replica_with_another_services_certificate_gets_no_request(gateway: Gateway) -> None:
    for node in ("node-1", "node-2", "node-3"):
        gateway.stop_service(node, "kv")
    for node in ("node-1", "node-2", "node-3"):
        gateway.start_service(node, "kv", certificate_of="audit")
    time.sleep(1.5)
    gateway.world.calls.clear()
    answer = gateway.rest("GET", "/v1/secrets/a")
    assert (answer.status, answer.reason) == (503, "UNAVAILABLE")
    assert not gateway.world.calls


def test_a_seal_replica_of_another_ordinal_does_not_pass_for_the_own_one(gateway: Gateway) -> None:
    gateway.stop_service("node-1", "seal")
    gateway.ports["node-2", "seal"], gateway.ports["node-1", "seal"] = (
        gateway.ports["node-1", "seal"],
        gateway.ports["node-2", "seal"],
    )
    gateway.stop_service("node-2", "seal")
    gateway.start_service("node-2", "seal")
    assert gateway.rest("GET", "/v1/sys/health").status == 503
