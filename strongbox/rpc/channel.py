"""Channels to our own services: mutual TLS, the server held to its service's name, silent peers found soon.

A certificate is good for one service (`<service>.strongbox.internal`), so a channel to seal cannot end at a
kv process even when addresses are mixed up. A channel keeps the certificate it was opened with; a renewed
one is used by the next channel, so whoever keeps a channel opens another after a renewal
(strongbox.process.certificate_renewal).
"""

from __future__ import annotations

import grpc
import grpc.aio

from strongbox.tls import TlsFiles, identity_of

__all__ = ["INTERNAL_DOMAIN", "OPTIONS", "TlsFiles", "open_channel", "server_name"]

INTERNAL_DOMAIN = "strongbox.internal"
# Pings every 2 s find a peer whose packets vanish within about 3 s; without them it took over 25 s.
OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A pod comes back with another address behind its name, which gRPC asks for every 30 s at most otherwise.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


def server_name(service: str) -> str:
    """The DNS name in the certificates of a service."""
    return f"{service}.{INTERNAL_DOMAIN}"


def open_channel(address: str, service: str, settings: TlsFiles) -> grpc.aio.Channel:
    """A channel to `service` at `address` (host:port); connects at the first call. Raises OSError."""
    now = identity_of(settings).current()
    credentials = grpc.ssl_channel_credentials(now.authority, now.key, now.certificate)
    options = (*OPTIONS, ("grpc.ssl_target_name_override", server_name(service)))
    return grpc.aio.secure_channel(address, credentials, options=options)
