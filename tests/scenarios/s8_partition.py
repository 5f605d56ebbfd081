"""S8: one of three hosts is cut off from its peers, while clients still reach all of them.

The hosts are network namespaces of this machine (tests.support.lab), so this needs root and ip(8), and says
so where they are not to be had: nothing is skipped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.robustness.outage import Writer
from tests.scenarios.world import World
from tests.support.chain_files import require_one_chain
from tests.support.clients import GrpcClient, Patience, Refused, RestClient
from tests.support.cluster import Cluster
from tests.support.etcd_door import EtcdDoor
from tests.support.expect import outcome

DEADLINE_SECONDS = 2.0  # of a request; and half a second for the machine
SEALED_SECONDS = 10.0
SERVES_SECONDS = 5.0
_LATE = 0.5
_PAUSE = 0.05
_BUSY = 4.0
_RULES = [{"path": "secret/load/*", "capabilities": ["read", "write", "list", "delete"]}]
_PATH = "load/s8/known"


def cut_off(world: World) -> str:
    """503 to everything, REST and gRPC, until it is healed; sealed by itself; the majority goes on."""
    cluster, lab = world.partitioned()
    token, late = _token(cluster), _LATE * (_BUSY if world.short else 1)
    lonely = cluster.node_ids.index(EtcdDoor(cluster).leader())
    others = [number for number in range(3) if number != lonely]
    with cluster.rest(token, others[0], Patience()) as rest:
        rest.write(_PATH, "before")
    with Writer(cluster, token, others[0]) as second, Writer(cluster, token, others[1]) as third:
        second.wait_for(20)
        third.wait_for(20)
        lab.cut(lonely + 1)
        cut_at = time.monotonic()
        asked, slowest, sealed_after = _besiege(cluster, token, lonely, cut_at, DEADLINE_SECONDS + late)
        second.wait_for(20)
        third.wait_for(20)
    pause = max(second.longest_pause, third.longest_pause)
    limit = SEALED_SECONDS + late
    assert sealed_after <= limit, f"it sealed itself only after {sealed_after:.1f} s"
    assert pause < 10.0, f"the majority paused {pause:.1f} s"
    return (
        f"{asked} requests refused, the slowest after {slowest:.2f} s; sealed itself after "
        f"{sealed_after:.1f} s; the majority's longest pause, etcd's leader being cut off, {pause:.2f} s"
    )


def healed(world: World) -> str:
    """It serves again; one chain in all three logs, one value for each version at all three nodes."""
    cluster, lab = world.partitioned()
    (lonely,) = (number - 1 for number in lab.apart)
    other = (lonely + 1) % 3
    token = _token(cluster, other)
    with cluster.rest(token, other, Patience()) as rest:
        for number in range(2, 12):
            rest.write(_PATH, f"version {number}")
    lab.heal()
    healed_at = time.monotonic()
    took = _until_it_serves(cluster, token, lonely, healed_at)
    seen = []
    for node in range(3):
        with cluster.rest(token, node, Patience()) as rest:
            rest.write(f"load/s8/after/{node}", "after")
            seen.append([rest.read(_PATH, version=number)["value"] for number in range(2, 12)])
    assert seen[0] == seen[1] == seen[2] == [f"version {number}" for number in range(2, 12)], seen
    with cluster.rest(cluster.root_token, 0, Patience()) as root:
        entries = require_one_chain(cluster, root)
    limit = SERVES_SECONDS * (_BUSY if world.short else 1)
    assert took <= limit, f"it serves again only after {took:.1f} s"
    return f"served again {took:.2f} s after healing; {entries} entries, the same in three logs"


def _besiege(
    cluster: Cluster, token: str, node: int, cut_at: float, limit: float
) -> tuple[int, float, float]:
    """Ask the node that is cut off for everything, until it has sealed itself and for two seconds more.

    How many requests, the slowest answer, and when it called itself sealed (seconds from the cut).
    """
    over = threading.Event()

    def ask(name: str, make: Callable[[], Any]) -> list[float]:
        took = []
        while not over.is_set():
            took.append(_refused_in_time(name, make, limit))
            time.sleep(_PAUSE)
        return took

    with (
        cluster.rest(token, node) as rest,
        cluster.grpc(token, node) as native,
        ThreadPoolExecutor(16) as threads,
    ):
        calls = _calls(cluster, token, node, native)
        asked = [threads.submit(ask, name, call) for name, call in calls.items()]
        try:
            while not _says_sealed(rest) and time.monotonic() < cut_at + 4 * SEALED_SECONDS:
                time.sleep(_PAUSE)
            sealed_after = time.monotonic() - cut_at
            time.sleep(2.0)
        finally:
            over.set()
        answers = [took for one in asked for took in one.result()]
    return len(answers), max(answers), sealed_after


def _calls(cluster: Cluster, token: str, node: int, native: GrpcClient) -> dict[str, Callable[[], Any]]:
    def rest(method: str, path: str, body: Any = None) -> Callable[[], Any]:
        client = cluster.rest(token, node)  # one for each: a connection carries one request at a time
        return lambda: client.call(method, path, body)

    return {
        "REST read": rest("GET", f"/v1/secrets/{_PATH}"),
        "REST write": rest("PUT", f"/v1/secrets/{_PATH}", {"value": "from the minority"}),
        "REST list": rest("GET", "/v1/secrets-list/load"),
        "REST token": rest("GET", "/v1/tokens/self"),
        "REST leases": rest("GET", "/v1/leases?path=secret/load/s8/known"),
        "gRPC read": lambda: native.call("ReadSecret", path=_PATH),
        "gRPC write": lambda: native.call("WriteSecret", path=_PATH, value="from the minority"),
        "gRPC delete": lambda: native.call("DeleteSecretVersions", path=_PATH),
        "gRPC audit": lambda: native.call("ListEntries", limit=1),
    }


def _refused_in_time(name: str, call: Callable[[], Any], limit: float) -> float:
    started = time.monotonic()
    refusal = outcome(call)
    took = time.monotonic() - started
    assert refusal is not None, f"{name} succeeded at a node that is cut off"
    assert refusal.code == "UNAVAILABLE" and refusal.http in (0, 503), f"{name}: {refusal}"
    assert took <= limit, f"{name} was refused only after {took:.2f} s"
    return took


def _says_sealed(rest: RestClient) -> bool:
    try:
        return bool(rest.call("GET", "/v1/sys/health")["sealed"])
    except Refused:  # its process is replaced, which follows the sealing
        return False


def _until_it_serves(cluster: Cluster, token: str, node: int, healed_at: float) -> float:
    with cluster.rest(token, node) as rest:
        while time.monotonic() < healed_at + 60:
            if outcome(rest.read, _PATH) is None and outcome(rest.write, "load/s8/again", "x") is None:
                return time.monotonic() - healed_at
            time.sleep(0.02)
    raise AssertionError("it does not serve again within 60 s")


def _token(cluster: Cluster, node: int = 0) -> str:
    with cluster.rest(cluster.root_token, node, Patience()) as root:
        root.call("PUT", "/v1/policies/s8", {"rules": [*_RULES, {"path": "audit", "capabilities": ["read"]}]})
        return str(root.call("POST", "/v1/tokens", {"policies": ["s8"]})["token"])
