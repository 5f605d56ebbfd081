"""Envoy's configuration in Kubernetes: the one template, with names that resolve to every replica."""

from __future__ import annotations

from collections.abc import Sequence

from strongbox.config import SERVICES
from strongbox.gateway.configuration import Endpoint, GatewaySettings, write_configuration
from strongbox.setup.settings import GatewayRenderSettings


def write_gateway(settings: GatewayRenderSettings) -> None:
    """Write the configuration, with its files for certificates beside it. Raises OSError."""
    host, port = _host_port(settings.gateway_listen)
    tls_host, tls_port = _host_port(settings.gateway_tls_listen)
    endpoints: dict[str, Sequence[Endpoint]] = {}
    for service in SERVICES:
        name, at = _host_port(getattr(settings, f"{service}_address"))
        # A pod is of no node, so none of the replicas is its own.
        endpoints[service] = [Endpoint(name, at, own=False)]
    write_configuration(
        GatewaySettings(
            node=settings.node_id,
            ordinal=None,
            host=host,
            port=port,
            tls_host=tls_host,
            tls_port=tls_port,
            endpoints=endpoints,
            discovery="STRICT_DNS",
            certificate=settings.tls_cert,
            key=settings.tls_key,
            authority=settings.tls_ca,
            configuration=settings.gateway_config,
            watched=settings.tls_cert.parent,
            limits=settings,
        )
    )


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
