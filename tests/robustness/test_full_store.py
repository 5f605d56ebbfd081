"""A store of 32 MiB that one caller filled: others read, root revokes, it seals and unseals, room is made.

The brake is StrongBox's (70 % of etcd's quota), so what is behind it goes on with nobody's help.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.support.clients import Patience, Refused, RestClient
from tests.support.cluster import Cluster
from tests.support.expect import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.heavy, pytest.mark.timeout(400)]
_QUOTA = 32 << 20
_LARGE = "x" * 400_000
_GREEDY = 6  # threads
_RULES = [
    {"path": "secret/greedy/*", "capabilities": ["read", "write", "metadata", "delete", "list"]},
    {"path": "auth/tokens", "capabilities": ["write"]},
]
_OTHERS = [{"path": "secret/others/*", "capabilities": ["read"]}]


@pytest.fixture
def small() -> Iterator[Cluster]:
    flags = {"quota-backend-bytes": str(_QUOTA)}
    with Cluster.start(1, hosts={"node-1": {"etcd_flags": flags}}) as running:
        yield running


class Greedy:
    """One caller who makes as much of one thing as he may, in threads; a context manager."""

    def __init__(self, cluster: Cluster, token: str, more: Callable[[RestClient, int], None]) -> None:
        self.answers: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(cluster, token, more, number), daemon=True)
            for number in range(_GREEDY)
        ]

    def __enter__(self) -> Greedy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _work(
        self, cluster: Cluster, token: str, more: Callable[[RestClient, int], None], first: int
    ) -> None:
        number = first
        with cluster.rest(token) as rest:
            while not self._stop.is_set():
                number += _GREEDY
                try:
                    more(rest, number)
                    self.answers["OK"] += 1
                except Refused as refusal:
                    self.answers[refusal.reason] += 1
                    time.sleep(0.02)
                except httpx.HTTPError:
                    self.answers["none"] += 1

    def wait_until_refused(self) -> None:
        """Until the store is as full as he may make it."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            before = self.answers.copy()
            time.sleep(2.0)
            lately = self.answers - before
            if lately["OVERLOADED"] > 20 and lately["OVERLOADED"] > lately["OK"]:
                return
        raise AssertionError(f"he was never refused: {self.answers}")


def more_tokens(rest: RestClient, number: int) -> None:
    rest.call("POST", "/v1/tokens", {"policies": ["greedy"], "ttl": "30m", "display_name": f"{number:0120d}"})


def more_leases(rest: RestClient, number: int) -> None:
    """A child reads forty secrets: as many leases. At last no child is made, and reading leaves no lease."""
    child = rest.call("POST", "/v1/tokens", {"policies": ["greedy"], "ttl": "30m"})
    with RestClient(rest.gateway, str(child["token"])) as reader:
        for secret in range(40):
            reader.read(f"greedy/{secret}")


def more_secrets(rest: RestClient, number: int) -> None:
    rest.write(f"greedy/of-{number}", "v" * 3000)


def more_metadata(rest: RestClient, number: int) -> None:
    custom = {f"key-{number % 1000}-{name}": "m" * 200 for name in range(12)}
    rest.call("PATCH", f"/v1/secrets-metadata/greedy/{number % 40}", {"custom": custom})
    if number % 40 < _GREEDY:
        rest.write(f"greedy/next-{number}", "v" * 200)


KINDS = [more_tokens, more_leases, more_secrets, more_metadata]


@pytest.mark.parametrize("more", KINDS, ids=lambda more: more.__name__)
def test_one_caller_who_fills_the_store_keeps_nobody_from_reading_or_making_room(
    small: Cluster, more: Callable[[RestClient, int], None]
) -> None:
    with small.rest(small.root_token, patience=Patience(20)) as root:
        root.call("PUT", "/v1/policies/greedy", {"rules": _RULES})
        root.call("PUT", "/v1/policies/others", {"rules": _OTHERS})
        for number in range(40):
            root.write(f"greedy/{number}", "small")
            root.write(f"others/{number}", f"value {number}")
        for number in range(45):  # not his: what he can fill is the rest
            eventually(120, root.write, f"large/{number}", _LARGE)
        greedy = root.call("POST", "/v1/tokens", {"policies": ["greedy"], "ttl": "1h"})
        honest = root.call("POST", "/v1/tokens", {"policies": ["others"], "ttl": "1h"})
        spare = root.call("POST", "/v1/tokens", {"policies": ["others"], "ttl": "1h"})
        with Greedy(small, str(greedy["token"]), more) as running:
            running.wait_until_refused()
            _others_read(small, str(honest["token"]))
        with small.rest(small.root_token) as impatient:
            impatient.call("DELETE", f"/v1/tokens/{spare['accessor']}")
            impatient.call("POST", "/v1/sys/seal", {})
        _unseal(small)
        _others_read(small, str(honest["token"]))
        with small.rest(small.root_token) as impatient:
            impatient.call("DELETE", f"/v1/tokens/{greedy['accessor']}")
            for number in range(30):
                impatient.call("DELETE", f"/v1/secrets-metadata/large/{number}")
        eventually(90, root.write, "others/0", "there is room again")


def _others_read(cluster: Cluster, token: str) -> None:
    with cluster.rest(token) as rest:
        for number in range(40):
            assert rest.read(f"others/{number}")["value"] == f"value {number}"


def _unseal(cluster: Cluster) -> None:
    with cluster.rest(patience=Patience(30)) as rest:
        for share in cluster.shares:
            with contextlib.suppress(Refused):
                if not rest.call("POST", "/v1/sys/unseal", {"share": share}).get("sealed", False):
                    break
    with cluster.rest(cluster.root_token) as root:
        eventually(30, root.read, "others/1")
