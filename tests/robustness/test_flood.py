"""A flood of requests without a valid token, unsealed and sealed: it fills nothing and stops nobody."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from strongbox.store import keyspace
from tests.support.clients import Patience, RestClient
from tests.support.cluster import Cluster
from tests.support.expect import eventually, outcome
from tests.support.store import Etcd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
FLOODERS = 6
_LEAST = 500  # requests of the flood: one that was not there proves nothing
_SLOTS, _OWN_READS = 64, 50


class Flood:
    """Threads that ask without a token, with junk for one, and with junk for a share; a context manager."""

    def __init__(self, cluster: Cluster) -> None:
        self.answers: Counter[int] = Counter()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(cluster, number), daemon=True)
            for number in range(FLOODERS)
        ]

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _work(self, cluster: Cluster, number: int) -> None:
        token = "" if number % 2 else f"sbt_{secrets.token_urlsafe(24)}"
        with cluster.rest(token, number % 2) as rest:  # the third gateway is left for the legitimate
            while not self._stop.is_set():
                try:
                    for path in ("/v1/secrets/flood", "/v1/audit", "/v1/tokens/self", "/v1/audit/checkpoint"):
                        self.answers[rest.raw("GET", path).status_code] += 1
                    answer = rest.raw("POST", "/v1/sys/unseal", b'{"share": "nonsense"}')
                    self.answers[answer.status_code] += 1
                except httpx.HTTPError:
                    self.answers[0] += 1

    def wait(self, requests: int, seconds: float = 60.0) -> None:
        """Until there were so many more."""
        wanted, deadline = self.answers.total() + requests, time.monotonic() + seconds
        while self.answers.total() < wanted:
            assert time.monotonic() < deadline, self.answers
            time.sleep(0.05)


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A cluster that is sealed and unsealed by this module alone."""
    with Cluster.start(3) as running:
        yield running


def test_unsealed_it_stops_no_caller_and_leaves_no_more_than_the_slots(own: Cluster) -> None:
    with own.rest(own.root_token, 2, Patience()) as root:
        root.write("flooded", "x")
        before = _head(root)
        with Flood(own) as flood:
            flood.wait(_LEAST // 2)
            for _ in range(_OWN_READS):
                assert root.read("flooded")["value"] == "x"
            flood.wait(_LEAST // 2)
        assert set(flood.answers) <= {400, 401, 429, 503, 504}
        assert flood.answers[401] > _LEAST // 2
        entries = _since(root, before)
        counted = [entry for entry in entries if entry["op"] == "CountUnauthenticated"]
        assert len(entries) < _OWN_READS + 2 * _SLOTS, "junk requests left entries of their own"
        assert all(entry["version"] > 0 for entry in counted)
        eventually(20, _require_counts, root, before)


def test_sealed_it_fills_nothing_and_an_unsealing_goes_through(own: Cluster) -> None:
    with own.rest(own.root_token, 2, Patience()) as root:
        before = _head(root)
        root.call("POST", "/v1/sys/seal", {})
    with Flood(own) as flood:
        flood.wait(_LEAST)
        with Etcd(own) as etcd:
            assert len(etcd.rows(keyspace.OUTBOX)) < 2 * _SLOTS + 10
        for share in own.shares[:2]:
            eventually(30, _give, own, share)
        with own.rest(own.root_token, 2, Patience()) as root:
            eventually(30, root.read, "flooded")
    assert flood.answers[503] > 0
    with own.rest(own.root_token, 2, Patience()) as root:
        eventually(20, _require_counts, root, before)


def _give(cluster: Cluster, share: str) -> None:
    with cluster.rest(node=2) as rest:
        refusal = outcome(rest.call, "POST", "/v1/sys/unseal", {"share": share})
        assert refusal is None or refusal.reason == "REPEATED_SHARE", str(refusal)


def _head(root: RestClient) -> int:
    return int(root.call("GET", "/v1/audit", limit=1)["head"]["index"])


def _since(root: RestClient, index: int) -> list[dict[str, object]]:
    return list(root.call("GET", "/v1/audit", from_index=index + 1, limit=1000)["entries"])


def _require_counts(root: RestClient, index: int) -> None:
    """The flood was counted, per source, and the counts are in the chain."""
    assert any(entry["op"] == "CountUnauthenticated" for entry in _since(root, index))
