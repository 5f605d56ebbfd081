"""Metrics of leases: how many live and wait to be ended, for how long, and how long issuing and ending take.

Those that wait are those that the reaper of this process has tried and failed to end. The holder of that duty
knows all of them after one round of attempts; other replicas report none. One that somebody else has ended
meanwhile is not tried again; it is dropped when its next attempt is overdue.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.lease import credential_lease

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds


class _Waiting(NamedTuple):
    """One that could not be ended: since when, and when it was last tried (monotonic seconds)."""

    since: float
    tried: float


class Measures:
    """In `registry`; nothing a client sends is a label. `longest_pause`: seconds from attempt to attempt."""

    def __init__(self, registry: CollectorRegistry, longest_pause: float = 40.0) -> None:
        self._overdue = 2 * longest_pause + 30.0  # an attempt may be late by a pass over others
        self.live = Gauge(
            "strongbox_leases_live", "Credentials that live, or have to be ended.", registry=registry
        )
        self._pending = Gauge(
            "strongbox_leases_pending", "Credentials that could not be ended yet.", registry=registry
        )
        self._oldest = Gauge(
            "strongbox_leases_pending_oldest_seconds",
            "For how long the oldest of them has been waiting.",
            registry=registry,
        )
        self.issue_seconds = Histogram(
            "strongbox_credential_issue_seconds",
            "How long issuing took.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._revoke_seconds = Histogram(
            "strongbox_credential_revoke_seconds",
            "How long ending a group of credentials took.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.reaped = Counter("strongbox_leases_reaped", "Leases that the reaper ended.", registry=registry)
        self.strange_roles = Gauge(
            "strongbox_postgres_strange_roles",
            "Roles named like ours that bear no mark of this cluster.",
            registry=registry,
        )
        self.orphans = Counter(
            "strongbox_postgres_orphans",
            "Roles of ours without a lease, dropped; or leases whose role had vanished.",
            registry=registry,
        )
        self._waiting: dict[str, _Waiting] = {}
        self._pending.set_function(self._count_waiting)
        self._oldest.set_function(self._longest_wait)

    def ended(
        self, tried: Iterable[credential_lease.Record], gone: set[str], seconds: float, *, duty: bool
    ) -> None:
        """Note that a group was tried, by the duty or for a request; `gone`: the ids that ended."""
        self._revoke_seconds.observe(seconds)
        now = time.monotonic()
        for record in tried:
            if record.id in gone:
                self._waiting.pop(record.id, None)
            elif duty:
                known = self._waiting.get(record.id)
                self._waiting[record.id] = _Waiting(known.since if known else now, now)

    def forget_waiting(self) -> None:
        """This process no longer holds the duty: whoever holds it now counts."""
        self._waiting.clear()

    def _count_waiting(self) -> float:
        # In the thread of a scrape, while the event loop writes: so over a copy. `copy` makes it without a
        # switch of threads; `list` makes a pair for each, and another thread may run in between.
        since = time.monotonic() - self._overdue
        for name, one in self._waiting.copy().items():
            if one.tried < since:
                self._waiting.pop(name, None)
        return float(len(self._waiting))

    def _longest_wait(self) -> float:
        self._count_waiting()
        now = time.monotonic()
        return now - min((one.since for one in self._waiting.copy().values()), default=now)
