"""A seal pod is ready when the next one may be taken away: an upgrade never has two that are sealed."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.seal.custody.held_keys import Custody
from services.seal.repository import SealState
from services.seal.status.readiness import Readiness, is_ready
from strongbox.clock import SystemClock
from strongbox.rpc.server import LIVE, READY
from tests.services.seal.nodes import SealNode, SealNodes
from tests.services.seal.test_processes import seal
from tests.support.etcd import free_ports


@pytest.mark.parametrize(
    ("state", "is_known", "holds", "ready"),
    [
        (SealState(False, 1), True, True, True),
        (SealState(False, 1), True, False, False),  # it has yet to get the key
        (SealState(True, 2), True, False, True),  # people unseal, whichever pod is there
        (SealState(True, 2), True, True, True),  # for a moment, before it wipes
        (None, True, False, True),  # before init
        (None, False, False, False),  # nothing is known yet
    ],
)
def test_a_replica_without_the_key_is_ready_only_where_nobody_has_it(
    state: SealState | None, is_known: bool, holds: bool, ready: bool
) -> None:
    assert is_ready(state, is_known=is_known, holds=holds) is ready


@pytest.mark.parametrize(("ago", "ready"), [(1.0, True), (9.0, True), (11.0, False)])
@pytest.mark.parametrize("state", [SealState(True, 2), None])
def test_what_was_read_long_ago_is_not_known_any_more(
    state: SealState | None, ago: float, ready: bool
) -> None:
    """Etcd answers this replica no longer; meanwhile the others may have been unsealed."""
    vigil: Any = SimpleNamespace(state=state, read_at=time.monotonic() - ago)
    assert Readiness(Custody(SystemClock()), vigil, cast("Any", None)).is_ready is ready


class Kubelet:
    """Asks as the kubelet does: without TLS, the health service and nothing else."""

    def __init__(self, nodes: SealNodes) -> None:
        self._ports = dict(zip([node.name for node in nodes.all], free_ports(len(nodes.all)), strict=True))
        for node in nodes.all:
            node.settings["PROBE_LISTEN"] = f"127.0.0.1:{self._ports[node.name]}"

    def told(self, node: SealNode, service: str) -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{self._ports[node.name]}") as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=service), timeout=2
                )
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def ready(self, node: SealNode) -> Callable[[], bool]:
        return lambda: self.told(node, READY)


def test_a_pod_that_came_back_is_ready_when_it_has_the_key_and_not_before() -> None:
    nodes = SealNodes()
    kubelet = Kubelet(nodes)
    first, second, third = nodes.all
    with nodes:
        for node in nodes.all:
            nodes.wait(kubelet.ready(node))  # before init
        made = nodes.unsealed()
        for node in nodes.all:
            nodes.wait(kubelet.ready(node))

        # Nobody gives it the key: it lives and serves (the gateway may send people to it), and is not ready.
        first.kill()
        first.settings["PEER_UNSEAL"] = "false"
        first.start()
        nodes.wait(lambda: kubelet.told(first, LIVE) and kubelet.told(first, ""))
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            assert not kubelet.told(first, READY)
        assert first.is_sealed() is True
        for share in made.shares[:2]:
            first.unseal(share)
        nodes.wait(kubelet.ready(first))
        assert first.is_sealed() is False

        # Peers give it: ready as soon as it has it.
        second.kill()
        second.start()
        nodes.wait(lambda: kubelet.told(second, LIVE))
        nodes.wait(kubelet.ready(second))
        assert second.is_sealed() is False

        # Sealed on purpose: all are ready, so that people, upgrades and drains can go on.
        seal(second, made)
        nodes.wait(lambda: all(node.is_sealed() is True for node in nodes.all))
        for node in nodes.all:
            nodes.wait(kubelet.ready(node))

        # Without etcd nobody knows: a pod that starts now is not ready, and still alive.
        nodes.etcd.stop()
        third.kill()
        third.start()
        nodes.wait(lambda: kubelet.told(third, LIVE))
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            assert not kubelet.told(third, READY)
