"""Clients that write and read through gateways while something is broken, and remember every answer.

Each writer has a path of its own and raises its version by one with `cas`, so at the end the number of
versions says whether a write was lost or applied twice. Every write is read back through another gateway.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.clients import Refused, RestClient
from tests.support.cluster import Cluster


@dataclass(slots=True)
class Record:
    """What one client did: acknowledged versions of its path, and what failed when (seconds of monotonic)."""

    path: str
    acknowledged: int = 0
    reads: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    slowest: float = 0.0


class Load:
    """`clients` threads through `nodes` (writes through one, reads through the next); a context manager."""

    def __init__(self, cluster: Cluster, token: str, clients: int, nodes: Sequence[int]) -> None:
        self.records = [Record(f"load/{time.time_ns():x}/{number}") for number in range(clients)]
        self._cluster, self._token, self._nodes = cluster, token, list(nodes)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(record, number), daemon=True)
            for number, record in enumerate(self.records)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for(self, writes: int, seconds: float = 30.0) -> None:
        """Until so many more writes were acknowledged. Raises TimeoutError."""
        wanted, deadline = self.acknowledged + writes, time.monotonic() + seconds
        while self.acknowledged < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{writes} writes took more than {seconds:.0f} s: {self.failures[:3]}")
            time.sleep(0.05)

    @property
    def failures(self) -> list[str]:
        """Every request that did not succeed."""
        return [text for record in self.records for _, text in record.failures]

    @property
    def acknowledged(self) -> int:
        return sum(record.acknowledged for record in self.records)

    def require_exactly_once(self, root: RestClient) -> None:
        """Each path holds exactly what was acknowledged: nothing lost, nothing twice."""
        for record in self.records:
            found = root.call("GET", f"/v1/secrets-metadata/{record.path}")["current_version"]
            assert found == record.acknowledged, (
                f"{record.path}: {found} versions, {record.acknowledged} acks"
            )
            assert root.read(record.path)["value"] == _value(record, record.acknowledged)

    def _work(self, record: Record, number: int) -> None:
        home = self._nodes[number % len(self._nodes)]
        other = self._nodes[(number + 1) % len(self._nodes)]
        with self._cluster.rest(self._token, home) as here, self._cluster.rest(self._token, other) as there:
            while not self._stop.is_set():
                self._write(record, here)
                if record.acknowledged:
                    self._read(record, there)

    def _write(self, record: Record, rest: RestClient) -> None:
        version = record.acknowledged + 1
        if self._timed(record, rest.write, record.path, _value(record, version), cas=version - 1):
            record.acknowledged = version

    def _read(self, record: Record, rest: RestClient) -> None:
        answer = self._timed(record, rest.read, record.path)
        if answer is None:
            return
        record.reads += 1
        if answer["value"] != _value(record, record.acknowledged):
            record.failures.append((time.monotonic(), f"{record.path}: stale read {answer['version']}"))

    def _timed(
        self, record: Record, call: Callable[..., dict[str, Any]], *args: Any, **named: Any
    ) -> dict[str, Any] | None:
        started = time.monotonic()
        try:
            return call(*args, **named)
        except (Refused, httpx.HTTPError) as error:
            record.failures.append((time.monotonic(), f"{type(error).__name__} {error}"))
            return None
        finally:
            record.slowest = max(record.slowest, time.monotonic() - started)


def _value(record: Record, version: int) -> str:
    return f"{record.path} version {version}"
