"""Two hundred thousand secrets: what a read, a write and a page of a listing cost does not follow."""

from __future__ import annotations

import time

import pytest

from services.kv.list_secrets import Listing
from strongbox.crypto.record_keys import RecordKeys
from strongbox.paths import DirectoryPath
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.strongbox.store.decisions.replicas import increment, look, running
from tests.support.etcd import EtcdCluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]
DIRECTORIES, EACH = 1000, 200
KEYS = RecordKeys({1: b"k" * 32}, 1)


async def test_reads_writes_and_pages_among_two_hundred_thousand_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with EtcdCluster(1) as cluster:
        etcd = Etcd(cluster.endpoints)
        empty = await _cost(cluster, "a/first")
        for directory in range(DIRECTORIES):
            puts = [txn.put(keyspace.head(f"d{directory:04d}/s{i:04d}"), b"x" * 600) for i in range(EACH)]
            await etcd.transact(txn.txn([], puts), deadline=time.monotonic() + 30, idempotent=True)
        full = await _cost(cluster, "a/second")
        names, pages, slowest = await _walk(etcd)
        await etcd.close()
    assert [name for name in names if name != "a/"] == [f"d{d:04d}/" for d in range(DIRECTORIES)]
    assert slowest < 30
    with capsys.disabled():
        print(f"\nmedian read and write, empty: {empty[0]:.2f} and {empty[1]:.2f} ms;", end=" ")
        print(f"among {DIRECTORIES * EACH}: {full[0]:.2f} and {full[1]:.2f} ms")
        print(f"{DIRECTORIES} directories in {pages} pages, the slowest {slowest * 1000:.0f} ms", flush=True)


async def _cost(cluster: EtcdCluster, path: str) -> tuple[float, float]:
    """Median milliseconds of a proven read and of a write."""
    key = keyspace.head(path)
    async with running(cluster.endpoints) as replica:
        medians = []
        for decide in (look(key), increment(key)):
            taken = []
            for _ in range(200):
                started = time.monotonic()
                await replica.act(decide, seconds=30)
                taken.append(time.monotonic() - started)
            medians.append(sorted(taken)[100] * 1000)
    return medians[0], medians[1]


async def _walk(etcd: Etcd) -> tuple[list[str], int, float]:
    """Every name of the root, the number of pages, the seconds of the slowest."""
    names: list[str] = []
    token, pages, slowest = "", 0, 0.0
    while True:
        started = time.monotonic()
        listing = Listing(DirectoryPath.parse(""), 100, token, KEYS, recursive=False)
        while not listing.is_over:
            start, end, limit = listing.wanted()
            reply = await etcd.range(start, end, limit, keys_only=True, deadline=time.monotonic() + 30)
            listing.take([row.key for row in reply.rows], lambda *_: True)
        names += listing.names
        token, pages, slowest = listing.token, pages + 1, max(slowest, time.monotonic() - started)
        if not token:
            return names, pages, slowest
