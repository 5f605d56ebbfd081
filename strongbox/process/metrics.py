"""Prometheus metrics of one process, served only where `METRICS_LISTEN` says so.

Names of methods and outcomes are ours, so the number of series is bounded; nothing a client sends is a label.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, start_http_server

from strongbox.config import Settings

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)  # seconds


class Metrics:
    """Requests by method and outcome, and how long they took."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._count = Counter(
            "strongbox_requests",
            "Calls ended, by method and outcome.",
            ("service", "method", "outcome"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "strongbox_request_seconds",
            "How long calls took.",
            ("service", "method"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._service = service
        self._counts: dict[tuple[str, str], Counter] = {}
        self._times: dict[str, Histogram] = {}

    def observe(self, method: str, outcome: str, seconds: float) -> None:
        """One call ended (strongbox.rpc.interceptors.call_log.Observer)."""
        count = self._counts.get((method, outcome))
        if count is None:
            count = self._counts[method, outcome] = self._count.labels(self._service, method, outcome)
        count.inc()
        times = self._times.get(method)
        if times is None:
            times = self._times[method] = self._seconds.labels(self._service, method)
        times.observe(seconds)


def observer_of(settings: Settings) -> Metrics | None:
    """The process's metrics, being served; None when no address is set. Raises OSError."""
    if not settings.metrics_listen:
        return None
    metrics = Metrics(settings.service)
    host, _, port = settings.metrics_listen.rpartition(":")
    start_http_server(int(port), host, registry=metrics.registry)
    return metrics
