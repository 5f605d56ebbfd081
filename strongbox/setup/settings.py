"""Settings of the setup commands, from the same environment as those of the services."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from strongbox.config import PREFIX, ConfigError

T = TypeVar("T", bound="FromEnvironment")


class FromEnvironment(BaseModel):
    """Settings that are read from variables named `STRONGBOX_` and their own name."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    @classmethod
    def load(cls: type[T], environ: Mapping[str, str] = os.environ) -> T:
        """Raises ConfigError, which quotes no value."""
        pairs = ((name, environ.get(PREFIX + name.upper(), "").strip()) for name in cls.model_fields)
        try:
            return cls.model_validate({name: value for name, value in pairs if value})
        except ValidationError as error:
            problems = (f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
            raise ConfigError("; ".join(problems)) from None


class EtcdUsersSettings(FromEnvironment):
    """How `etcd-users` reaches etcd: with the operator's certificate."""

    etcd_endpoints: tuple[str, ...] = Field(min_length=1)
    tls_cert: Path
    tls_key: Path
    tls_ca: Path

    @field_validator("etcd_endpoints", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


class GatewayRenderSettings(FromEnvironment):
    """What Envoy's configuration is rendered with. An address is host:port; the host, a name of many."""

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
    certificate_days: int = Field(90, ge=1, le=825)
    renew_before_days: int = Field(30, ge=0)
