"""Watches etcd meanwhile: two holders of a duty never both take effect, and time never goes back.

* Every effect of the suite's own duty (tests.robustness.probe) bears the number of the term in office at its
  revision.
* `cluster/time`, the audit duty's, is put only while somebody holds that office, and never goes back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Self

from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd, Tls
from strongbox.store.etcd.errors import Compacted, EtcdError
from strongbox.store.etcd.watch import Event, Kind, watch
from tests.robustness import probe

_TIME_OFFICE = keyspace.election("audit", "audit")


class Witness:
    """A context manager: a thread of its own; afterwards `violations`, and how much was seen."""

    def __init__(self, endpoints: Sequence[str], certificates: Path) -> None:
        self._endpoints, self._certificates = list(endpoints), certificates
        self.violations: list[str] = []
        self.effects = self.terms = self.times = self.gaps = 0
        self._office: dict[bytes, int | None] = {}
        self._time = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)

    async def _work(self) -> None:
        certificates = self._certificates
        tls = Tls.read(certificates / "ca.pem", certificates / "operator.pem", certificates / "operator.key")
        etcd = Etcd(self._endpoints, tls)
        watches = [
            asyncio.create_task(self._follow(etcd, start, end))
            for start, end in (
                (probe.PREFIX, keyspace.prefix_end(probe.PREFIX)),
                # cluster/time and the elections lie side by side under /strongbox/.
                (keyspace.CLUSTER_TIME, keyspace.prefix_end(keyspace.ELECTIONS)),
            )
        ]
        while not self._stop.is_set():
            await asyncio.sleep(0.1)
        for one in watches:
            one.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await etcd.close()

    async def _follow(self, etcd: Etcd, start: bytes, end: bytes) -> None:
        while True:
            try:
                found = await etcd.range(start, end, deadline=time.monotonic() + 2.0)
                self._forget(start, end)
                for row in found.rows:
                    self._learn(row.key, row.value)
                async with aclosing(watch(etcd, start, end, found.revision + 1)) as batches:
                    async for batch in batches:
                        for event in batch.events:
                            self.see(event)
            except (Compacted, EtcdError):
                self.gaps += 1
                await asyncio.sleep(0.1)

    def _forget(self, start: bytes, end: bytes) -> None:
        for key in (probe.OFFICE, _TIME_OFFICE):
            if start <= key < end:
                self._office[key] = None

    def _learn(self, key: bytes, value: bytes) -> None:
        if key in (probe.OFFICE, _TIME_OFFICE):
            self._office[key] = int(value.split(b" ")[0])
        elif key == keyspace.CLUSTER_TIME:
            self._time = int(value)

    def see(self, event: Event) -> None:
        """One change, in etcd's order."""
        if event.key in (probe.OFFICE, _TIME_OFFICE):
            self._office[event.key] = int(event.value.split(b" ")[0]) if event.kind is Kind.PUT else None
            self.terms += event.kind is Kind.PUT
        elif event.key == probe.EFFECT and event.kind is Kind.PUT:
            self.effects += 1
            self._judge_effect(event)
        elif event.key == keyspace.CLUSTER_TIME and event.kind is Kind.PUT:
            self.times += 1
            self._judge_time(event)

    def _judge_effect(self, event: Event) -> None:
        term, office = int(event.value.split(b" ")[0]), self._office.get(probe.OFFICE)
        if term != office:
            self.violations.append(
                f"duty: an effect of term {term} at revision {event.mod_revision}, in office: {office}"
            )

    def _judge_time(self, event: Event) -> None:
        value = int(event.value)
        if self._office.get(_TIME_OFFICE) is None:
            self.violations.append(
                f"duty: cluster/time is put at revision {event.mod_revision} by nobody in office"
            )
        if value < self._time:
            self.violations.append(f"cluster/time goes back by {self._time - value} ms")
        self._time = value
