"""Metrics of leases: how many live and wait to be ended, for how long, and how long issuing and ending take.

How many wait is what this process has tried and failed to end; the holder of the reaper's duty knows all of
them after one round of attempts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.lease import grants

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds


class Measures:
    """In `registry`; nothing a client sends is a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
        self._waiting: dict[str, float] = {}
        self._pending.set_function(lambda: float(len(self._waiting)))
        self._oldest.set_function(self._longest_wait)

    def ended(self, tried: Iterable[grants.Record], gone: set[str], seconds: float) -> None:
        """A group was tried; these are gone."""
        self._revoke_seconds.observe(seconds)
        for record in tried:
            if record.id in gone:
                self._waiting.pop(record.id, None)
            else:
                self._waiting.setdefault(record.id, time.monotonic())

    def forget_waiting(self) -> None:
        """This process has laid the duty down: whoever has it now counts."""
        self._waiting.clear()

    def _longest_wait(self) -> float:
        first = next(iter(self._waiting.values()), None)
        return 0.0 if first is None else time.monotonic() - first
