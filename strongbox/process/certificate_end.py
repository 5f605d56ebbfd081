"""When this process's certificate ends, as a metric: a renewal that has stopped is seen weeks before."""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509
from prometheus_client import CollectorRegistry, Gauge

from strongbox.tls import Identity

NAME = "strongbox_certificate_end_timestamp_seconds"


def tell_certificate_end(registry: CollectorRegistry, identity: Identity) -> None:
    """A gauge: when the certificate in use ends, in seconds since 1970."""
    gauge = Gauge(NAME, "When this process's certificate ends.", registry=registry)
    gauge.set_function(lambda: _ends_at(identity.current().certificate))


@lru_cache(maxsize=4)
def _ends_at(certificate: bytes) -> float:
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()
