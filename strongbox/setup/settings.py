"""Settings of the setup commands, from the same environment as those of the services."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from strongbox.config import FromEnvironment
from strongbox.gateway.source_limits import Limits

_DNS_NAME = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


_Several = Annotated[tuple[str, ...], BeforeValidator(_split)]  # comma-separated


def is_address(text: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class EtcdUsersSettings(FromEnvironment):
    """How `etcd-users` reaches etcd: with the operator's certificate."""

    etcd_endpoints: _Several = Field(min_length=1)
    tls_cert: Path
    tls_key: Path
    tls_ca: Path


class GatewayRenderSettings(Limits):
    """What Envoy's configuration is rendered with. An address: host:port; a host may be many replicas."""

    node_id: str = Field(min_length=1, max_length=63)
    gateway_listen: str = "127.0.0.1:8080"
    gateway_tls_listen: str = "0.0.0.0:8443"
    gateway_config: Path = Path("envoy.yaml")
    seal_address: str
    kv_address: str
    auth_address: str
    lease_address: str
    audit_address: str
    tls_cert: Path
    tls_key: Path
    tls_ca: Path


class CertificateSettings(FromEnvironment):
    """Which secrets `certificates` makes, and for how long they are good."""

    namespace: str = Field(min_length=1)
    seal_replicas: int = Field(3, ge=1, le=5)
    etcd_replicas: int = Field(3, ge=1, le=7)
    gateway_names: _Several = ()
    certificate_days: int = Field(90, ge=1, le=825)
    renew_before_days: int = Field(30, ge=0)

    @field_validator("gateway_names")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if len(name) > 253 or not (is_address(name) or _DNS_NAME.fullmatch(name)):
                raise ValueError("DNS names in lower case, and IP addresses, comma-separated")
        return value
