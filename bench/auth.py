"""`python -m bench.auth`: 200 logins at once, right and wrong passwords, while reads go on.

Prints what became of the logins, how long they took, and the reads' latency before and meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support.clients import Patience, Refused
from tests.support.cluster import Cluster

LOGINS, USERS, READERS = 200, 40, 4
PASSWORD = "correct horse battery staple"


class Reads:
    """Readers that never pause; a context manager. Latencies in seconds, failures by reason."""

    def __init__(self, cluster: Cluster, token: str) -> None:
        self.latencies: list[float] = []
        self.failures: Counter[str] = Counter()
        self._cluster, self._token, self._stop = cluster, token, threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(n % 3,)) for n in range(READERS)]

    def _read(self, node: int) -> None:
        with self._cluster.rest(self._token, node) as rest:
            while not self._stop.is_set():
                begun = time.perf_counter()
                try:
                    rest.read("bench/one")
                except (Refused, httpx.HTTPError) as error:
                    self.failures[str(error)[:60]] += 1
                else:
                    self.latencies.append(time.perf_counter() - begun)

    def __enter__(self) -> Reads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def told(self) -> str:
        """Median, 99th percentile, slowest."""
        some = sorted(self.latencies)
        at = [some[min(len(some) - 1, int(part * len(some)))] * 1000 for part in (0.5, 0.99, 1.0)]
        return (
            f"{len(some)} reads, median {at[0]:.0f} ms, p99 {at[1]:.0f} ms, slowest {at[2]:.0f} ms, "
            f"{sum(self.failures.values())} failed"
        )


def login(cluster: Cluster, number: int) -> tuple[str, float]:
    """What became of one login, and its seconds; every second password is wrong."""
    password = PASSWORD if number % 2 else "wrong horse battery staple"
    begun = time.perf_counter()
    with cluster.rest("", number % 3) as rest:
        try:
            rest.call("POST", f"/v1/auth/login/user-{number % USERS}", {"password": password})
            outcome = "token"
        except Refused as refusal:
            outcome = f"{refusal.http} {refusal.reason}"
    return f"{'right' if number % 2 else 'wrong'}: {outcome}", time.perf_counter() - begun


def prepare(cluster: Cluster) -> str:
    """Users, a secret, and a token that reads it."""
    with cluster.rest(cluster.root_token, 0, Patience()) as root:
        rules = [{"path": "secret/bench/*", "capabilities": ["read"]}]
        root.call("PUT", "/v1/policies/bench", {"rules": rules})
        for number in range(USERS):
            root.call("PUT", f"/v1/users/user-{number}", {"password": PASSWORD, "policies": ["bench"]})
        root.write("bench/one", "x" * 100)
        return str(root.call("POST", "/v1/tokens", {"policies": ["bench"]})["token"])


def run(cluster: Cluster) -> tuple[Counter[str], list[float], float, Reads, Reads]:
    """Outcomes, seconds of each login, seconds of all, the reads before and meanwhile."""
    token = prepare(cluster)
    with Reads(cluster, token) as before:
        time.sleep(4)
    with Reads(cluster, token) as meanwhile, ThreadPoolExecutor(LOGINS) as pool:
        begun = time.perf_counter()
        results = list(pool.map(lambda number: login(cluster, number), range(LOGINS)))
        took = time.perf_counter() - begun
    return Counter(outcome for outcome, _ in results), [s for _, s in results], took, before, meanwhile


def main() -> None:
    """Run on three nodes and print."""
    with Cluster.start(3) as cluster:
        outcomes, seconds, took, before, meanwhile = run(cluster)
    print(f"{LOGINS} logins at once in {took:.1f} s, the slowest {max(seconds):.1f} s: {dict(outcomes)}")
    print(f"reads before: {before.told()}")
    print(f"reads meanwhile: {meanwhile.told()}")


if __name__ == "__main__":
    main()
