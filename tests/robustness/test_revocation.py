"""Revocation while replicas die and writes are under way: nothing slips through.

* Every token writes as fast as it can, at two nodes, when it is revoked at the third. A write that was
  begun after the revocation was acknowledged is refused; one that was under way may succeed, but what it
  wrote is in the secret before the revocation's answer: its revision is smaller.
* Meanwhile auth and kv processes are killed and started again, one after the other, all the time.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.clients import Patience, Refused, RestClient
from tests.support.cluster import Cluster
from tests.support.expect import eventually, outcome

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]
PATIENT = 20.0


@pytest.fixture(scope="module")
def damaged() -> Iterator[Cluster]:
    with Cluster.start(3) as running:
        yield running


class Killer(threading.Thread):
    """Kills auth and kv of each node in turn, and starts them again; a context manager."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._cluster, self._stop_it = cluster, threading.Event()
        self.kills = 0

    def run(self) -> None:
        for node, name in itertools.cycle((n, s) for n in self._cluster.node_ids for s in ("auth", "kv")):
            if self._stop_it.wait(0.5):
                return
            self._cluster.process(node, name).kill()
            self.kills += 1
            self._stop_it.wait(1.0)
            self._cluster.up(node=node, unseal=False)

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_it.set()
        self.join(60)


@dataclass
class Writing:
    """One token's writes: when each was begun and what came of it."""

    revisions: list[tuple[float, int]] = field(default_factory=list)
    refusals: list[tuple[float, str]] = field(default_factory=list)

    def work(self, rest: RestClient, path: str, stop: threading.Event) -> None:
        while not stop.is_set():
            begun = time.monotonic()
            try:
                answer = rest.write(path, "x")
            except Refused as refusal:
                self.refusals.append((begun, refusal.code))
                if refusal.code == "UNAUTHENTICATED":
                    return
            except httpx.HTTPError as error:  # the process died under it
                self.refusals.append((begun, type(error).__name__))
            else:
                self.revisions.append((begun, int(answer["revision"])))


def revoke_under_fire(cluster: Cluster, number: int) -> int:
    """One revocation; returns how many writes of the token had succeeded by then. Raises AssertionError."""
    nodes = [(number + shift) % 3 for shift in range(3)]
    with cluster.rest(cluster.root_token, nodes[0], Patience(PATIENT)) as root:
        made = root.call("POST", "/v1/tokens", {"policies": ["fire"], "ttl": "10m"})
        stop, writings = threading.Event(), [Writing(), Writing()]
        clients = [cluster.rest(str(made["token"]), node) for node in nodes[1:]]
        threads = [
            threading.Thread(target=one.work, args=(client, f"fire/{number}-{place}", stop), daemon=True)
            for place, (one, client) in enumerate(zip(writings, clients, strict=True))
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        root.call("DELETE", f"/v1/tokens/{made['accessor']}")
        acknowledged = time.monotonic()
        mark = int(root.call("PUT", f"/v1/secrets/fire/mark-{number}", {"value": "x"})["revision"])
        _require_refused_everywhere(cluster, str(made["token"]))
        time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join(15)
        for client in clients:
            client.close()
    for writing in writings:
        late = [one for one in writing.revisions if one[0] >= acknowledged]
        assert late == [], f"a write begun after the acknowledgement succeeded: {late}"
        # The mark was written after the acknowledgement: whatever succeeded stands before it.
        assert all(revision < mark for _, revision in writing.revisions), (mark, writing.revisions)
    return sum(len(writing.revisions) for writing in writings)


def _require_refused_everywhere(cluster: Cluster, token: str) -> None:
    """At every node, REST and gRPC, the very next request; a replica that is dead just now is asked again."""
    patience = Patience(PATIENT)
    for node in range(3):
        with cluster.rest(token, node, patience) as rest, cluster.grpc(token, node, patience) as native:
            for call in (
                lambda rest=rest: rest.read("fire/any"),
                lambda native=native: native.call("LookupSelf"),
            ):
                told = _told(call)
                assert told is not None, "a revoked token was let in"
                assert told.code == "UNAUTHENTICATED", str(told)


def _told(call: Any) -> Refused | None:
    for _ in range(20):
        try:
            return outcome(call)
        except httpx.HTTPError:  # its connection was under way through a process that died
            time.sleep(0.05)
    raise AssertionError("no answer at all")


def _prepare(cluster: Cluster) -> None:
    rules = [{"path": "secret/fire/*", "capabilities": ["read", "write"]}]
    with cluster.rest(cluster.root_token, 0, Patience(PATIENT)) as root:
        root.call("PUT", "/v1/policies/fire", {"rules": rules})


def _run(cluster: Cluster, times: int) -> tuple[int, int]:
    _prepare(cluster)
    with Killer(cluster) as killer:
        writes = sum(revoke_under_fire(cluster, number) for number in range(times))
    for node in range(3):
        with cluster.rest(cluster.root_token, node) as root:
            eventually(60, root.call, "GET", "/v1/sys/ready")
    return writes, killer.kills


def test_nothing_slips_through_a_revocation_while_replicas_are_killed(damaged: Cluster) -> None:
    writes, kills = _run(damaged, 25)
    assert writes > 25, "too few writes were under way to prove anything"
    assert kills >= 2


@pytest.mark.heavy
def test_a_thousand_revocations_while_replicas_are_killed(
    damaged: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    writes, kills = _run(damaged, 1000)
    assert writes > 1000
    assert kills >= 50
    with capsys.disabled():
        print(
            f"\n1,000 revocations, {writes} writes under way, {kills} kills: none slipped through", flush=True
        )
