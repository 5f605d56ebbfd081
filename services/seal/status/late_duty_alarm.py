"""Reporting late duties: a warning in the log, and metrics (`strongbox_duty_…`, one series per duty).

A warning comes when a duty becomes late, every ten minutes while it is, and when it makes progress again.
"""

from __future__ import annotations

import structlog
from prometheus_client import CollectorRegistry, Gauge

from services.seal.status.duty_status import Duties

_REMIND = 600.0  # seconds between two log lines about a late duty
_log = structlog.get_logger(__name__)


class Alarm:
    """One seal replica's reports about duties; without a registry only in the log."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._told_at: dict[str, float] = {}
        self._held = _gauge("held", "1: a replica holds the duty.", registry)
        self._late = _gauge("late", "1: the duty makes no progress.", registry)
        self._terms = _gauge("terms", "Terms of office so far.", registry)
        self._success = _gauge(
            "last_success_timestamp_seconds", "When the duty last made progress; 0: not known.", registry
        )

    def tell(self, duties: Duties, now: float) -> None:
        """Report the duties' state at monotonic `now`."""
        for name, duty in duties.all.items():
            self._held.labels(name).set(bool(duty.holder))
            self._late.labels(name).set(duty.is_late)
            self._terms.labels(name).set(duty.terms)
            self._success.labels(name).set(duty.success_ms / 1000)
            if not duty.is_late:
                if self._told_at.pop(name, None) is not None:
                    _log.warning("a duty makes progress again", duty=name, holder=duty.holder)
            elif now - self._told_at.get(name, float("-inf")) >= _REMIND:
                self._told_at[name] = now
                idle = round(duty.idle_s)
                _log.warning("a duty is late", duty=name, holder=duty.holder, terms=duty.terms, idle_s=idle)


def _gauge(name: str, text: str, registry: CollectorRegistry | None) -> Gauge:
    return Gauge(f"strongbox_duty_{name}", text, ("duty",), registry=registry)
