"""What the audit chain does: entries appended and verified a second, and how soon a request is in the chain.

The first figures are one process's work on one core (chaining, hashing, fsync of the log; HMAC, links and
Merkle root of the offline verifier), on a log in a temporary folder. The delay is of a real cluster: from the
answer of a write to the moment when every replica has its entry on disk, asked of the files themselves.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from services.audit.log.query import Filter, ascending, filter_of
from services.audit.log.segments import Segments
from strongbox.audit.v1 import audit_service_pb2 as pb
from strongbox.audit_log.chain import GENESIS, Entry, link
from strongbox.audit_log.checkpoint import Checkpoint
from strongbox.audit_log.log_checker import Proofs, verify_files
from strongbox.audit_log.merkle import prove_inclusion
from tests.support.cluster import Cluster

KEY = bytes(range(32))
LOT = 100  # entries written at once: what a loaded cluster gathers in 50 ms
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing; the median of the rounds."""

    name: str
    value: float
    unit: str


def measure(cluster: Cluster, entries: int, tell: Callable[[Figure], None]) -> list[Figure]:
    """All figures; `tell` is called with each."""
    found = []
    for figure in (*_on_disk(entries), *_delays(cluster)):
        tell(figure)
        found.append(figure)
    return found


def heading(out: TextIO) -> Callable[[Figure], None]:
    """A function that prints a figure as a row."""
    return lambda figure: print(
        f"audit      {figure.name:<58} {figure.value:>10.1f} {figure.unit}", file=out, flush=True
    )


def _on_disk(entries: int) -> Iterator[Figure]:
    """Work of one process on a log of so many entries."""
    with tempfile.TemporaryDirectory(prefix="strongbox-bench-") as folder:
        seconds = []
        for number in range(ROUNDS):
            log = Segments(Path(folder) / str(number))
            started = time.perf_counter()
            for lot in _lots(entries):
                log.append(lot)
            seconds.append(time.perf_counter() - started)
        yield Figure(
            f"chained and made durable, {LOT} a lot", entries / statistics.median(seconds), "entries/s"
        )
        files = sorted(log.folder.glob("*.jsonl"))
        signed = Checkpoint("bench", entries, log.hashes.root(entries))
        ways = {
            "HMAC": Proofs({1: KEY}),
            "checkpoint": Proofs(None, (signed,)),
            "both": Proofs({1: KEY}, (signed,)),
        }
        for name, proofs in ways.items():
            taken = _seconds(lambda proofs=proofs: verify_files(files, proofs))  # type: ignore[misc]
            yield Figure(f"verified offline by {name}", entries / taken, "entries/s")
        taken = _seconds(lambda: Segments(log.folder).close())
        yield Figure("opened, every line compared with its hash", entries / taken, "entries/s")
        proof = _seconds(
            lambda: [prove_inclusion(i, entries, log.hashes.read) for i in range(0, entries, entries // 100)]
        )
        yield Figure("an inclusion proof", proof * 1e4, "µs")
        until = time.monotonic() + 3600
        nothing = filter_of(pb.ListEntriesRequest(op="Nothing"))
        taken = _seconds(lambda: ascending(log, nothing, 0, entries, 100, until))
        yield Figure("searched by a filter that matches nothing", min(entries, 100_000) / taken, "entries/s")
        taken = _seconds(lambda: ascending(log, Filter(), entries - 1000, entries, 100, until))
        yield Figure("a page of 100 near the end", taken * 1e3, "ms")
        log.close()


def _seconds(work: Callable[[], object]) -> float:
    """The median time that it takes."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _lots(entries: int) -> Iterator[list[Entry]]:
    head, lot = GENESIS, list[Entry]()
    for index in range(entries):
        made = link(KEY, head, _entry(index))
        head = made.hmac
        lot.append(made)
        if len(lot) == LOT:
            yield lot
            lot = []


def _entry(index: int) -> Entry:
    return Entry(
        index=index, ts="2026-01-31T12:00:00.123Z", request_id="7d9f0c1e-0000-4000-8000-000000000001",
        accessor="A" * 24, op="ReadSecret", path="secret/app/db/password", version=3, outcome="ok", reason="",
        client="127.0.0.1", producer="kv/0123456789abcdef", producer_seq=f"{index}.0.0",
        prev_hmac="", hmac="",
    )  # fmt: skip


def _delays(cluster: Cluster) -> Iterator[Figure]:
    """From an answer to its entry on the disks of all replicas, one write at a time."""
    delays = []
    with cluster.rest(cluster.root_token) as rest:
        for number in range(40):
            answer = rest.raw("PUT", "/v1/secrets/bench/audited", b'{"value": "%d"}' % number)
            answered, wanted = time.perf_counter(), answer.headers["x-request-id"].encode()
            left = {node: _newest(cluster, node) for node in cluster.node_ids}
            while left and time.perf_counter() - answered < 5:
                left = {node: file for node, file in left.items() if wanted not in _end_of(file)}
                time.sleep(0.001)
            delays.append(time.perf_counter() - answered)
            time.sleep(0.05)
    yield Figure("from the answer to the entry on every disk, median", 1e3 * statistics.median(delays), "ms")
    yield Figure("the same, slowest of 40", 1e3 * max(delays), "ms")


def _newest(cluster: Cluster, node: str) -> Path:
    return max((cluster.folder / node / "audit").glob("*.jsonl"))


def _end_of(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 8192))
        return stream.read()
