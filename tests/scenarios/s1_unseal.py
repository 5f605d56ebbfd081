"""S1: unsealing and sealing."""

from __future__ import annotations

import os
import time
from typing import Any

from strongbox.crypto.shamir import Share
from tests.scenarios.world import THRESHOLD, World
from tests.support.clients import RestClient, refusal_of
from tests.support.expect import eventually, outcome, refused
from tests.support.samples import FIELDS, message_of, rest_call
from tests.support.surface import Rpc, public_rpcs

_OPEN = {"Initialize", "Unseal", "GetSealStatus", "GetHealth", "GetReady"}


def shares_at_different_nodes(world: World) -> str:
    """One share fewer than the threshold does nothing; junk in between spoils nothing."""
    world.sealed()
    _require_progress(world, f"0/{THRESHOLD}")
    for number, share in enumerate(world.shares[: THRESHOLD - 1]):
        _junk(world, number)
        with world.rest(node=number) as rest:
            answer = rest.call("POST", "/v1/sys/unseal", {"share": share})
            assert answer["sealed"] is True
            assert answer["progress"] == f"{number + 1}/{THRESHOLD}"
        for node in range(3):
            _repeat(world, node, share)
    _junk(world, 2)
    _require_progress(world, f"{THRESHOLD - 1}/{THRESHOLD}")
    with world.rest(world.root_token, node=1) as rest:
        refused("UNAVAILABLE/SEALED", rest.read, "a")
    with world.grpc(node=2) as native:
        assert native.call("Unseal", share=world.shares[THRESHOLD - 1]).sealed is False
    started = time.monotonic()
    world.wait_ready()
    took = time.monotonic() - started
    _require_serving(world, "unsealed")
    return f"every service at every node served {took:.1f} s later"


def _give(rest: RestClient, share: str) -> dict[str, Any]:
    return rest.call("POST", "/v1/sys/unseal", {"share": share})


def _repeat(world: World, node: int, share: str) -> None:
    """A share given again is refused alone, over REST and gRPC."""
    with world.rest(node=node) as rest, world.grpc(node=node) as native:
        before = rest.call("GET", "/v1/sys/seal-status")
        refused("INVALID_ARGUMENT/REPEATED_SHARE", _give, rest, share)
        refused("INVALID_ARGUMENT/REPEATED_SHARE", native.call, "Unseal", share=share)
        assert rest.call("GET", "/v1/sys/seal-status") == before, "a repeated share counted twice"


def _junk(world: World, node: int) -> None:
    foreign = Share(200, os.urandom(32)).encode()
    altered = world.shares[-1][:-4] + ("AAAA" if not world.shares[-1].endswith("AAAA") else "BBBB")
    with world.rest(node=node) as rest, world.grpc(node=node) as native:
        before = rest.call("GET", "/v1/sys/seal-status")["progress"]
        for junk in ("", "not a share", foreign, altered, world.shares[-1] + "AA", "A" * 3000):
            refused("INVALID_ARGUMENT", _give, rest, junk)
            refused("INVALID_ARGUMENT", native.call, "Unseal", share=junk)
        refused("INVALID_ARGUMENT", rest.call, "POST", "/v1/sys/unseal", {"reset": True, "share": foreign})
        assert rest.call("GET", "/v1/sys/seal-status")["progress"] == before


def _require_progress(world: World, progress: str) -> None:
    for node in range(3):
        with world.rest(node=node) as rest:
            status = rest.call("GET", "/v1/sys/seal-status")
            assert (status["sealed"], status["progress"]) == (True, progress), f"node {node}: {status}"


def _require_serving(world: World, value: str) -> None:
    for node in range(3):
        with world.rest(world.root_token, node) as rest, world.grpc(world.root_token, node) as native:
            eventually(10, rest.write, "s1/after", value)
            assert native.call("ReadSecret", path="s1/after").value == value


def sealed_means_sealed(world: World) -> None:
    """Every RPC but the open ones, at every node; then after a restart of everything; then unsealed again."""
    cluster = world.unsealed()
    _require_serving(world, "before")
    with world.rest(world.root_token, node=2) as rest:
        answer = rest.call("POST", "/v1/sys/seal", {})
        assert answer["sealed"] is True
        assert sorted(answer["confirmed"] + answer["unconfirmed"]) == sorted(cluster.node_ids)
    for node in range(3):  # the very next request, while the seal processes begin their new lives
        with cluster.rest(world.root_token, node) as rest, cluster.grpc(world.root_token, node) as native:
            refused("UNAVAILABLE/SEALED", rest.read, "s1/after")
            refused("UNAVAILABLE/SEALED", native.call, "WriteSecret", path="s1/after", value="lost")
    _require_all_sealed(world)
    if not world.short:
        cluster.down()
        cluster.up(unseal=False)
        eventually(20, _require_all_sealed, world)
    world.unsealed()
    with world.rest(world.root_token) as rest:
        assert rest.read("s1/after")["value"] == "before"


def _require_all_sealed(world: World) -> None:
    for node in range(3):
        assert world.is_sealed(node)
    for node in range(3):
        for rpc in public_rpcs():
            if rpc.name not in _OPEN:
                _require_sealed(world, rpc, node)
        with world.rest(node=node) as rest:
            assert rest.call("GET", "/v1/sys/health")["sealed"] is True
            refused("UNAVAILABLE/SEALED", rest.call, "GET", "/v1/sys/ready")


def _require_sealed(world: World, rpc: Rpc, node: int) -> None:
    call = rest_call(rpc, FIELDS[rpc.name])
    cluster = world.cluster
    with cluster.rest(world.root_token, node) as rest, cluster.grpc(world.root_token, node) as native:
        answer = rest.raw(call.method, call.target, call.body)
        assert answer.status_code == 503, f"{rpc} at node {node}: {answer.status_code}"
        assert refusal_of(answer).reason == "SEALED", f"{rpc} at node {node}: {refusal_of(answer)}"
        refusal = outcome(native.send, rpc, message_of(rpc, FIELDS[rpc.name]))
        assert refusal is not None, f"{rpc} answered over gRPC while sealed"
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SEALED"), f"{rpc}: {refusal}"
