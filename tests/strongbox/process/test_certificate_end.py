"""The metric by which a renewal that has stopped is seen in time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from prometheus_client import CollectorRegistry

from strongbox.dev.certs import Certificates
from strongbox.process.certificate_end import NAME, tell_certificate_end
from strongbox.tls import Identity


def days_left(registry: CollectorRegistry) -> float:
    value = registry.get_sample_value(NAME)
    assert value is not None
    return (value - dt.datetime.now(dt.UTC).timestamp()) / 86400


def test_the_metric_follows_the_certificate_that_counts_now(tmp_path: Path) -> None:
    made = Certificates(tmp_path / "certs")
    made.ensure(["node-1"])
    files = made.of("node-1", "kv")
    registry = CollectorRegistry()
    tell_certificate_end(registry, Identity(made.authority, files.certificate, files.key))
    for days in (3, 40):
        made.rotate(["node-1"], dt.timedelta(days=days))
        assert days - 0.1 < days_left(registry) <= days
