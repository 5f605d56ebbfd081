"""S7: the holder of a duty is killed; a whole node is killed, with etcd's leader."""

from __future__ import annotations

import time
from typing import Any

from tests.robustness.load import Load
from tests.robustness.outage import Writer, kill_node, wait_for_successor
from tests.scenarios.world import World
from tests.support.clients import Patience, RestClient
from tests.support.etcd_door import EtcdDoor
from tests.support.expect import eventually

NEW_LEADER_SECONDS = 2.0
WRITES_RESUME_SECONDS = 1.2
_BUSY = 4.0  # in `make test`, on a machine that does other things as well, this many times as long
_WRITES = 20
_RULES = [{"path": "secret/load/*", "capabilities": ["read", "write"]}]


def holder_killed(world: World) -> str:
    """kill -9 of the audit duty's holder under load; the next one, seen through the other nodes."""
    cluster = world.unsealed()
    token = str(world.token(_RULES)["token"])
    before: dict[str, Any] = {}
    try:
        with Load(cluster, token, clients=4, nodes=[0, 1, 2]) as load:
            load.wait_for(_WRITES)
            took, before, after = wait_for_successor(cluster, "audit")
            load.wait_for(_WRITES)
        assert load.failures == [], load.failures[:3]
        assert after["term"] > before["term"], (before, after)
        with cluster.rest(world.root_token, 1, Patience()) as root:
            load.require_exactly_once(root)
    finally:
        for node in [str(before["leaders"]["audit"])] if before else cluster.node_ids:
            _start_again(world, node)
    _require(world, "a new leader", took, NEW_LEADER_SECONDS)
    return f"a new leader after {took:.2f} s, term {before['term']} to {after['term']}, 0 requests failed"


def node_killed(world: World) -> str:
    """kill -9 of everything of the node whose etcd leads, under writes through the others."""
    cluster = world.unsealed()
    token = str(world.token(_RULES)["token"])
    node = EtcdDoor(cluster).leader()
    index = cluster.node_ids.index(node)
    others = [number for number in range(3) if number != index]
    try:
        with Writer(cluster, token, others[0]) as first, Writer(cluster, token, others[1]) as second:
            first.wait_for(_WRITES)
            second.wait_for(_WRITES)
            killed = kill_node(cluster, node)
            took = max(writer.first_after(killed) for writer in (first, second)) - killed
            first.wait_for(_WRITES)
            second.wait_for(_WRITES)
        for other in others:
            with cluster.rest(token, other, Patience()) as rest:
                _require_all(rest, first, second)
    finally:
        _start_again(world, node)
    with cluster.rest(token, index, Patience()) as rest:
        _require_all(rest, first, second)
    _require(world, "writes", took, WRITES_RESUME_SECONDS)
    acknowledged = len(first.acknowledged) + len(second.acknowledged)
    return f"writes went on after {took:.2f} s at both other nodes; {acknowledged} acknowledged, all there"


def _require_all(rest: RestClient, *writers: Writer) -> None:
    for writer in writers:
        for path, value in writer.acknowledged.items():
            assert rest.read(path)["value"] == value, f"{path} is not what was acknowledged"


def _require(world: World, what: str, took: float, limit: float) -> None:
    limit *= _BUSY if world.short else 1
    assert took <= limit, f"{what} only after {took:.2f} s (at most {limit:.1f})"


def _start_again(world: World, node: str) -> None:
    world.cluster.up(node=node, unseal=False)
    with world.rest(node=world.cluster.node_ids.index(node)) as rest:
        eventually(30, rest.call, "GET", "/v1/sys/ready")
    world.wait_ready()
    time.sleep(1.0)  # sessions of what was killed are gone, so the next check begins with everybody there
