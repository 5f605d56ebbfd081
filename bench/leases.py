"""`python -m bench.leases`: what the lease service costs with 1,000, 100,000 and a million leases stored.

One node by the development command. Leases (half of secrets that were read, half of credentials) are put
straight into etcd, by the code and under the keys that the services use, to expire when the run is long over:
nothing is due, so nothing should cost more than with none. The credentials' connection is not there, so what
the reconciler does beside PostgreSQL is not in the figures. Prints a row for each size.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import cpu_seconds, resident_mib
from strongbox.crypto.record_keys import RecordKeys
from strongbox.crypto.shamir import Share
from strongbox.dev.processes.children import started_at
from strongbox.lease_records import read_lease
from strongbox.store.etcd.client import Etcd, Tls
from tests.support.clients import Patience, RestClient
from tests.support.cluster import Cluster, Process
from tests.support.cluster_keys import keys_of
from tests.support.leases import Put, grant, putting_grant, putting_read, seed

SIZES = (1000, 100_000, 1_000_000)
SHORT = (1000, 10_000)
CALLS = 300  # of each kind
HOLDERS = 1000  # tokens that the leases are spread over
FAR_MS = 6 * 3_600_000
_TICKS = os.sysconf("SC_CLK_TCK")
_ROW = "{:>10} {:>9} {:>9} {:>9} {:>12} {:>13} {:>13} {:>13}"


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured with so many leases; latencies are medians."""

    leases: int
    ready_s: float
    answer_s: float
    memory_mib: float
    cpu_s_per_minute: float
    lookup_ms: float
    first_lookup_ms: float
    renew_ms: float


def heading() -> str:
    """The head of the table."""
    return _ROW.format(
        "leases", "ready s", "answer s", "RSS MiB", "idle CPU", "lookup ms", "1st look ms", "renew ms"
    )  # fmt: skip


def row(figure: Figure) -> str:
    """A row. `answer`: a lease can be read again; idle CPU: seconds a minute; `1st`: one not read before."""
    return _ROW.format(
        figure.leases, f"{figure.ready_s:.2f}", f"{figure.answer_s:.2f}", f"{figure.memory_mib:.0f}",
        f"{figure.cpu_s_per_minute:.2f}",
        f"{figure.lookup_ms:.2f}", f"{figure.first_lookup_ms:.2f}", f"{figure.renew_ms:.2f}",
    )  # fmt: skip


def measure(sizes: Sequence[int], seconds: float, tell: Callable[[Figure], None]) -> list[Figure]:
    """Measure with no lease, then with each of these numbers; `tell` is called with each figure."""
    found: list[Figure] = []
    with Cluster.start(1) as cluster:
        keys = RecordKeys({1: _record_key(cluster)}, 1)
        with cluster.rest(cluster.root_token, 0, Patience()) as root:
            root.write("bench/leased", "x")
            own = str(root.read("bench/leased")["lease"]["id"])
        stored = 0
        for size in (0, *sizes):
            asyncio.run(_store(cluster, keys, range(stored, size)))
            stored = size
            found.append(_with(cluster, size, own, seconds))
            tell(found[-1])
    return found


def _with(cluster: Cluster, size: int, own: str, seconds: float) -> Figure:
    ready, answer = _start_anew(cluster, f"/v1/leases/{own}")
    with cluster.rest(cluster.root_token, 0, Patience(30)) as root:
        root.call("GET", f"/v1/leases/{own}")
        time.sleep(3)  # duties are sought, sessions end
        pid = [cluster.process("node-1", "lease").pid]
        memory, before, begun = resident_mib(pid), cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        idle = (cpu_seconds(pid) - before) / (time.monotonic() - begun) * 60
        names = [_read_record(number, 0).id for number in range(0, size, 2)]
        strangers = names[:: max(1, len(names) // CALLS)][:CALLS]
        return Figure(
            size, ready, answer, memory, idle,
            _median(root, "GET", [f"/v1/leases/{own}"] * CALLS),
            _median(root, "GET", [f"/v1/leases/{name}" for name in strangers]),
            _median(root, "POST", [f"/v1/leases/{own}/renew"] * CALLS, {}),
        )  # fmt: skip


def _start_anew(cluster: Cluster, path: str) -> tuple[float, float]:
    """Seconds from the new process's start until it says that it listens, and until `path` is answered."""
    old = cluster.process("node-1", "lease")
    old.kill()
    while started_at(old.pid) is not None:
        time.sleep(0.01)
    with ThreadPoolExecutor(1) as pool, cluster.rest(cluster.root_token) as root:
        starting = pool.submit(cluster.up, node="node-1", unseal=False)
        while root.raw("GET", path).status_code != 200:
            time.sleep(0.02)
        answered = time.clock_gettime(time.CLOCK_BOOTTIME)
        starting.result()
    new = cluster.process("node-1", "lease")
    began = (started_at(new.pid) or 0) / _TICKS
    return _said_ready(cluster, new) - began, answered - began


def _said_ready(cluster: Cluster, process: Process) -> float:
    """When its only line on standard output was written, in seconds since boot."""
    written = (cluster.folder / process.node / "logs" / "lease.out").stat().st_mtime
    return written - time.time() + time.clock_gettime(time.CLOCK_BOOTTIME)


def _median(root: RestClient, method: str, paths: Sequence[str], body: Any = None) -> float:
    """The median time of these requests, in milliseconds; 0 without any."""
    times = []
    for path in paths:
        begun = time.perf_counter()
        root.call(method, path, body)
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times) if times else 0.0


def _record_key(cluster: Cluster) -> bytes:
    return keys_of(cluster, [Share.decode(share) for share in cluster.shares[:2]])["record key 1"]


async def _store(cluster: Cluster, keys: RecordKeys, numbers: range) -> None:
    certs = Path(cluster.description["certs"])
    tls = Tls.read(certs / "ca.pem", certs / "operator.pem", certs / "operator.key")
    etcd = Etcd([str(one).removeprefix("https://") for one in cluster.description["etcd"]], tls)
    now_ms = time.time_ns() // 1_000_000
    await seed(etcd, _leases(keys, numbers, now_ms), now_ms)
    await etcd.close()


def _leases(keys: RecordKeys, numbers: range, now_ms: int) -> Iterator[Put]:
    for number in numbers:
        if number % 2:
            until = now_ms + FAR_MS + number
            yield putting_grant(keys, grant(number, _holder(number), now_ms, until))
        else:
            yield putting_read(keys, _read_record(number, now_ms))


def _read_record(number: int, now_ms: int) -> read_lease.Record:
    accessor, path = _holder(number), f"secret/seeded/{number:07d}"
    return read_lease.Record(
        id=read_lease.lease_id(accessor, path), path=path, accessor=accessor, issued_ms=now_ms,
        expires_ms=now_ms + FAR_MS + number,
    )  # fmt: skip


def _holder(number: int) -> str:
    return hashlib.sha256(b"holder %d" % (number % HOLDERS)).hexdigest()[:24]


def main() -> int:
    """Print a row for each size, or JSON."""
    parser = argparse.ArgumentParser(prog="bench.leases", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of leases, ascending")
    parser.add_argument("--seconds", type=float, default=20.0, help="for how long the idle cost is watched")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    if options.output == "json":
        measure(sizes, options.seconds, lambda figure: print(json.dumps(_as_json(figure)), flush=True))
        return 0
    print(heading())
    measure(sizes, options.seconds, lambda figure: print(row(figure), flush=True))
    return 0


def _as_json(figure: Figure) -> dict[str, float]:
    return {name: getattr(figure, name) for name in figure.__slots__}


if __name__ == "__main__":
    sys.exit(main())
