"""Reporting how this replica is: health, presence, metrics. A look reads memory only.

A replica in trouble (its file gone, full, altered, or another chain than the others') is "not serving", so
the gateway asks another; its session key says why, so that every node's health can say it too; it is in the
process's log already. What only needs attention (a disk that fills, an archive that cannot be reached) is
reported in the same session key, and the replica goes on serving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from services.audit.duties.audit_duty import Trimming
from services.audit.duties.retention import Retention
from services.audit.following.replica import Replica
from services.audit.serving.stdout_copy import StandardOutput
from strongbox.process import Runtime

PERIOD = 0.5  # seconds


class Reporting:
    """Watches one replica and the duty it may hold."""

    def __init__(
        self,
        runtime: Runtime,
        replica: Replica,
        duty: Trimming,
        copies: StandardOutput | None,
        retention: Retention | None = None,
    ) -> None:
        self._runtime, self._replica, self._duty, self._retention = runtime, replica, duty, retention
        self._was_in_trouble = False
        if runtime.metrics is not None:
            _register(runtime.metrics.registry, self._gauges(copies))

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD)

    async def look(self) -> None:
        """Tell what has changed since the last look."""
        runtime, trouble = self._runtime, self._replica.trouble or self._duty.alarm
        told = trouble or (self._retention.warning if self._retention else "")
        if trouble and runtime.health.serving:
            await runtime.health.set_serving(False)
        elif self._was_in_trouble and not trouble:
            await runtime.health.set_serving(True)
        self._was_in_trouble = bool(trouble)
        if told != runtime.trouble:
            runtime.trouble = told
            runtime.session.write_now()

    def _gauges(self, copies: StandardOutput | None) -> dict[str, tuple[str, Callable[[], float]]]:
        replica, duty = self._replica, self._duty
        return {
            "strongbox_audit_trouble": (
                "1: the log here is in trouble.",
                lambda: bool(replica.trouble or duty.alarm),
            ),
            "strongbox_audit_warning": (
                "1: room or archive want attention.",
                lambda: bool(self._retention and self._retention.warning),
            ),
            "strongbox_audit_entries": ("Entries of the chain here.", lambda: replica.position.size),
            "strongbox_audit_first_index": ("The first entry not archived.", lambda: replica.log.first),
            "strongbox_audit_log_bytes": ("What the segments here take.", lambda: replica.log.kept_bytes),
            "strongbox_audit_disk_used_ratio": (
                "How full the disk of the log is, 0 to 1.",
                lambda: self._retention.room.disk if self._retention else 0.0,
            ),
            "strongbox_audit_gaps": ("Missing batches seen since the start.", lambda: replica.gaps),
            "strongbox_audit_backlog": (
                "Records the duty sees in the outbox.",
                lambda: max(0, duty.backlog.records),
            ),
            "strongbox_audit_backlog_bytes": ("What these take.", lambda: duty.backlog.size),
            "strongbox_audit_copies_dropped": (
                "Entries not copied to standard output.",
                lambda: copies.dropped if copies else 0,
            ),
        }


def _register(registry: CollectorRegistry, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
    for name, (text, read) in gauges.items():
        Gauge(name, text, registry=registry).set_function(read)
