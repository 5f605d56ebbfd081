"""A million tokens that expire in one minute are tidied away, and nobody else's request waits for it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence

import pytest

from services.auth import tidy_decisions
from services.auth.logins.secret_ids import SecretIds
from services.auth.repository import EXPIRE, Repository, due_key
from services.auth.tidy_duty import Tidy
from strongbox.access import token_format
from strongbox.access.guard import Guard
from strongbox.clock import SystemClock
from strongbox.errors import StrongBoxError
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import EtcdError
from tests.strongbox.store.decisions.replicas import look, running
from tests.support.access import FakeCluster
from tests.support.etcd import EtcdCluster

pytestmark = pytest.mark.timeout(3000)
TOGETHER = 250  # tokens put by one transaction: 750 operations


class Fence:
    """A term that lasts."""

    def require(self, view: View, /) -> None:
        pass

    def progress(self) -> None:
        """Nobody looks."""


async def seed(etcd: Etcd, cluster: FakeCluster, count: int, now_ms: int) -> None:
    """So many expired tokens, with all that leads to them, as CreateToken puts them."""
    for start in range(0, count, TOGETHER):
        puts = []
        for _ in range(min(TOGETHER, count - start)):
            digest = secrets.token_hex(32)
            record = storage.TokenRecord(
                accessor=token_format.new_accessor(), policies=["app"], expires_ms=now_ms - 120_000, ttl_s=60
            )
            puts += [txn.put(k, v) for k, v in token_format.token_puts(cluster.keys, digest, record).items()]
            puts.append(txn.put(due_key(record.expires_ms, digest), EXPIRE))
        await etcd.transact(txn.txn([], puts), deadline=time.monotonic() + 30, idempotent=True)


async def tidy_away(count: int, members: int) -> tuple[list[float], list[float], float]:
    """Latencies (s) of a proven read before and meanwhile, by the same replica and by another.

    Seconds it took.
    """
    with EtcdCluster(members, extra=["--quota-backend-bytes=8589934592"]) as store:
        etcd, cluster, clock = Etcd(store.endpoints), FakeCluster(), SystemClock()
        await seed(etcd, cluster, count, clock.now_ms())
        async with running(store.endpoints) as own, running(store.endpoints) as other:
            guard = Guard(cluster.source)
            tidy = Tidy(own.pipeline, Repository(guard.lookup), SecretIds(guard.lookup), etcd, clock)
            before = await _latencies([own, other], asyncio.sleep(3))
            begun = time.monotonic()
            meanwhile = await _latencies([own, other], _tidied(tidy))
            took = time.monotonic() - begun
        left = await etcd.range(keyspace.TOKENS, keyspace.prefix_end(keyspace.TOKENS), 1, keys_only=True)
        assert left.rows == ()
        await etcd.close()
    return before, meanwhile, took


async def _tidied(tidy: Tidy) -> None:
    """As the duty goes on: what a busy machine interrupts is still due at the next pass."""
    found = 1
    while found:
        try:
            found = await tidy.one_pass(Fence())
        except (StrongBoxError, EtcdError):
            continue


async def _latencies(replicas: Sequence[object], meanwhile: object) -> list[float]:
    found: list[float] = []

    async def ask(replica: object) -> None:
        while True:
            begun = time.monotonic()
            await replica.act(look(keyspace.SEAL_STATE), seconds=30)  # type: ignore[attr-defined]
            found.append(time.monotonic() - begun)
            await asyncio.sleep(0.005)

    askers = [asyncio.create_task(ask(replica)) for replica in replicas]
    await meanwhile  # type: ignore[misc]
    for asker in askers:
        asker.cancel()
    await asyncio.gather(*askers, return_exceptions=True)
    return sorted(found)


def told(latencies: list[float]) -> str:
    """Median, 99.9th percentile and slowest in milliseconds."""
    at = [latencies[min(len(latencies) - 1, int(part * len(latencies)))] for part in (0.5, 0.999, 1.0)]
    return "median {:.1f} ms, p99.9 {:.0f} ms, slowest {:.0f} ms".format(*(one * 1000 for one in at))


async def test_five_thousand_expired_tokens_go_in_a_few_seconds() -> None:
    _, meanwhile, took = await tidy_away(5000, 1)
    assert took < 40
    assert meanwhile[-1] < 2.0


def test_what_is_due_is_read_by_shards_that_together_are_everything() -> None:
    ranges = list(tidy_decisions.due_ranges(keyspace.TOKENS_DUE, 10**12))
    assert len(ranges) == len(set(ranges)) == 256
    for digest in (secrets.token_hex(32) for _ in range(200)):
        assert sum(start <= due_key(10**11, digest) < end for start, end in ranges) == 1
        assert not any(start <= due_key(10**12, digest) < end for start, end in ranges)


@pytest.mark.heavy
async def test_a_million_expired_tokens_are_tidied_without_a_pause(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, meanwhile, took = await tidy_away(1_000_000, 1)
    with capsys.disabled():
        print(f"\na million expired tokens tidied in {took:.0f} s ({1_000_000 / took:.0f} a second)")
        print(f"reads before: {told(before)}; meanwhile: {told(meanwhile)}", flush=True)
    assert meanwhile[-1] < 0.5
