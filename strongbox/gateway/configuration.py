"""The gateway's configuration, rendered from gateway/envoy.yaml and the descriptor set."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strongbox.config import SERVICES
from strongbox.gateway import routes
from strongbox.gateway.replies import REPLIES
from strongbox.gateway.source_limits import Limits, refused_code
from strongbox.gateway.template import render

ROOT = Path(__file__).resolve().parents[2]
_TEMPLATE = ROOT / "gateway" / "envoy.yaml"
_HEAD = ROOT / "gateway" / "head.lua"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_DESCRIPTORS = ROOT / "gateway" / "strongbox.binpb"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a replica listens; `own`: it is of the gateway's node and is preferred."""

    host: str
    port: int
    own: bool


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything a gateway's configuration depends on. `ordinal` is that of its node's seal replica.

    `configuration` is where the main file goes, with the two for certificates beside it; `watched` is the
    folder in which something is renamed when certificates are replaced. Without `ordinal` there is no own
    node: any seal replica answers for it.
    """

    node: str
    ordinal: int | None
    port: int
    endpoints: dict[str, Sequence[Endpoint]]
    certificate: Path
    key: Path
    authority: Path
    configuration: Path
    watched: Path
    tls_port: int | None = None
    host: str = "127.0.0.1"
    tls_host: str = ""
    discovery: str = "STATIC"
    limits: Limits = field(default_factory=Limits)


def envoy_configuration(settings: GatewaySettings) -> str:
    """The whole configuration as YAML. Raises TemplateError, RuleError, OSError."""
    known = routes.load_descriptors(_DESCRIPTORS.read_bytes())
    methods = routes.public_methods(known)
    return render(
        _TEMPLATE.read_text(encoding="utf-8"),
        {
            "NODE": settings.node,
            "LISTEN_HOST": settings.host,
            "LISTEN_PORT": settings.port,
            "TLS_HOST": settings.tls_host or settings.host,
            "TLS_PORT": settings.tls_port or 0,
            "TRUSTED_PROXIES": settings.limits.gateway_trusted_proxies,
            "REFUSED_CODE": refused_code(settings.limits),
            "HEAD_CODE": _HEAD.read_text(encoding="utf-8"),
            "DISCOVERY": settings.discovery,
            "SDS": str(_beside(settings, "identity")),
            "SDS_CA": str(_beside(settings, "authority")),
            "DESCRIPTOR": base64.b64encode(known.SerializeToString()).decode("ascii"),
            "PUBLIC_SERVICES": routes.public_services(methods),
        },
        {
            "REPLIES": [reply.values() for reply in REPLIES],
            "REFUSED_QUERIES": routes.refused_queries(known),
            "HEAD_PATHS": routes.head_paths(known),
            "ROUTES": [method.values(settings.limits) for method in methods],
            "CLUSTERS": _clusters(settings),
        },
        {"TLS": settings.tls_port is not None, "NO_PROXY": not settings.limits.gateway_trusted_proxies},
    )


def write_configuration(settings: GatewaySettings) -> None:
    """Write the main file and the two beside it. Raises as `envoy_configuration`."""
    settings.configuration.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, secret in _secrets(settings).items():
        resource = {"@type": f"{_TLS}.Secret", "name": name, **secret}
        text = json.dumps({"resources": [resource]}, indent=1)
        _beside(settings, name).write_text(text + "\n", encoding="utf-8")
    settings.configuration.write_text(envoy_configuration(settings), encoding="utf-8")


def _beside(settings: GatewaySettings, name: str) -> Path:
    return settings.configuration.with_name(f"sds-{name}.json")


def _secrets(settings: GatewaySettings) -> dict[str, dict[str, Any]]:
    """What Envoy reads by SDS: its certificate, and whom it trusts; both read again when files change."""
    watched = {"path": str(settings.watched)}
    return {
        "identity": {
            "tls_certificate": {
                "certificate_chain": {"filename": str(settings.certificate)},
                "private_key": {"filename": str(settings.key)},
                "watched_directory": watched,
            }
        },
        "authority": {
            "validation_context": {
                "trusted_ca": {"filename": str(settings.authority)},
                "watched_directory": watched,
            }
        },
    }


def _clusters(settings: GatewaySettings) -> list[dict[str, Any]]:
    every = [_cluster(service, service, settings.endpoints[service]) for service in SERVICES]
    if settings.ordinal is None:
        return [*every, _cluster("seal_local", "seal", settings.endpoints["seal"])]
    own_seal = [endpoint for endpoint in settings.endpoints["seal"] if endpoint.own]
    # Its own node's answer or none: no health check, no ejection, so that every call really asks.
    local = _cluster("seal_local", "seal", own_seal, checked=False)
    return [*every, {**local, "SAN_MATCHER": {"exact": f"spiffe://strongbox/seal/{settings.ordinal}"}}]


def _cluster(
    name: str, service: str, endpoints: Sequence[Endpoint], *, checked: bool = True
) -> dict[str, Any]:
    identity = f"spiffe://strongbox/{service}"
    return {
        "NAME": name,
        "SNI": f"{service}.strongbox.internal",
        "ENDPOINTS": _by_priority(endpoints),
        "HEALTH_CHECKS": [_HEALTH_CHECK] if checked else [],
        "ENFORCED": 100 if checked else 0,
        # A seal replica's name ends with its ordinal.
        "SAN_MATCHER": {"prefix": f"{identity}/"} if service == "seal" else {"exact": identity},
    }


# One a second to each replica: 45 a second in all for three gateways, about 2 % of a core. A replica is
# unhealthy when it is late twice: late once it may only be busy, and one that is gone is noticed earlier, by
# its connections. But Envoy sends its time-out along, and gRPC answers DEADLINE_EXCEEDED when it is over: if
# that answer comes first, it is an error, which Envoy does not count but believes. So a replica that is late
# once may be passed over for one check or two (some 1.5 s).
_HEALTH_CHECK: dict[str, Any] = {
    "timeout": "1s",
    "interval": "1s",
    "no_traffic_interval": "1s",
    "unhealthy_interval": "0.5s",
    "interval_jitter_percent": 10,
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
    "grpc_health_check": {},
}


def _by_priority(endpoints: Sequence[Endpoint]) -> list[dict[str, Any]]:
    """Own replica first. Priorities start at 0 and have no gap, as Envoy wants them."""
    groups = [[e for e in endpoints if e.own], [e for e in endpoints if not e.own]]
    return [
        {"priority": priority, "lb_endpoints": [_lb_endpoint(endpoint) for endpoint in group]}
        for priority, group in enumerate(group for group in groups if group)
    ]


def _lb_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    address = {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}
    return {"endpoint": {"address": address}}
