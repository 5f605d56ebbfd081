"""Duties on a real cluster: they go on after every pause of their holder, and everybody can see it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongbox.process.duties import DUTIES
from strongbox.store import keyspace
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.expect import eventually
from tests.support.store import Etcd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
_PAUSE = 2.5  # seconds: more than a session lasts
_LEASE_DUTIES = ("reaper", "follower", "reconciler", "rewrap-lease")


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """One node for this module alone: its processes are stopped."""
    with Cluster.start(1) as running:
        yield running


def _duties(own: Cluster) -> dict[str, Any]:
    with own.rest(own.root_token, 0, Patience()) as rest:
        found = rest.call("GET", "/v1/sys/health")["duties"]
        assert isinstance(found, dict)
        return found


def _terms(own: Cluster) -> dict[str, int]:
    with Etcd(own) as etcd:
        rows = etcd.rows(keyspace.ELECTIONS)
    counts = {
        key.decode().split("/")[-2]: int(value) for key, value in rows.items() if key.endswith(b"/term")
    }
    return {name: counts.get(name, 0) for name in _LEASE_DUTIES}


def _require_success_after(own: Cluster, before: dict[str, str], names: tuple[str, ...]) -> None:
    now = _duties(own)
    for name in names:
        assert now[name]["holder"] == "node-1", name
        assert now[name].get("last_success_at", "") > before.get(name, ""), name
        assert now[name]["late"] is False, name


def _success(own: Cluster) -> dict[str, str]:
    return {name: duty.get("last_success_at", "") for name, duty in _duties(own).items()}


def test_health_tells_of_every_duty_who_does_it_and_when_it_last_got_on(own: Cluster) -> None:
    eventually(30, _require_success_after, own, {}, tuple(DUTIES))
    assert set(_duties(own)) == set(DUTIES)


def test_duties_go_on_after_their_process_was_paused_again_and_again(own: Cluster) -> None:
    """A pause ends the session; the second term once was ended by the memory of the first, for ever."""
    for _ in range(3):
        pid = own.process("node-1", "lease").pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(_PAUSE)  # the fault itself
        os.kill(pid, signal.SIGCONT)
        before = _success(own)
        eventually(20, _require_success_after, own, before, ("reaper", "follower", "rewrap-lease"))
    settled = _terms(own)
    before = _success(own)
    eventually(20, _require_success_after, own, before, ("reaper", "follower"))
    assert _terms(own) == settled, "terms follow each other though nobody is paused"
    assert "in office" in _events(own, "lease")
    assert "out of office" in _events(own, "lease")


def _events(own: Cluster, service: str) -> set[str]:
    told = (Path(own.folder) / "node-1" / "logs" / f"{service}.log").read_text().splitlines()
    return {json.loads(line).get("event", "") for line in told if line.startswith("{")}
