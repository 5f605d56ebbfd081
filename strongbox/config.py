"""Settings of one service process: the environment, then a file, then the defaults here.

`STRONGBOX_CONFIG` names the file: lines of `KEY=value`, with or without the prefix `STRONGBOX_`, `#` for
comments. Line endings of any system, a byte order mark and white space at the ends of a line are harmless,
in the environment too: a carriage return is never part of an address. An unknown key in the file is refused:
a misspelt setting must not be ignored. Nothing here is a secret; keys and certificates are named by path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PREFIX = "STRONGBOX_"
SERVICES = ("seal", "kv", "auth", "lease", "audit")


class ConfigError(Exception):
    """The settings make no sense; the text says which and why."""


T = TypeVar("T", bound="FromEnvironment")


class FromEnvironment(BaseModel):
    """Settings that are read from variables named `STRONGBOX_` and their own name, and from nothing else."""

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


class Settings(BaseModel):
    """What a service process needs to know before it can start."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    node_id: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]{1,63}$")
    service: Literal["seal", "kv", "auth", "lease", "audit"]
    listen: str = "127.0.0.1:0"
    advertise: str = ""
    etcd_endpoints: tuple[str, ...] = Field(min_length=1)
    tls_cert: Path
    tls_key: Path
    tls_ca: Path
    upkeep_cert: Path | None = None
    upkeep_key: Path | None = None
    seal_addresses: tuple[str, ...] = ()
    peer_unseal: bool = True
    audit_stdout: bool = False
    # audit: where whole segments are archived to; the size that the log should stay below, and for how many
    # days entries stay in it at least (0: as long as there is no reason to move them)
    audit_archive: Path | None = None
    audit_limit_mib: int = Field(default=0, ge=0)
    audit_keep_days: int = Field(default=0, ge=0, le=36_500)
    data_dir: Path = Path(".")
    profile: Literal["local", "kubernetes"] = "local"
    metrics_listen: str = ""
    # lease: pauses between attempts to end a credential (the first, doubled up to the last), and from one
    # comparison with PostgreSQL to the next
    revoke_backoff_s: float = Field(default=10.0, gt=0)
    revoke_backoff_cap_s: float = Field(default=40.0, gt=0)
    reconcile_every_s: float = Field(default=60.0, gt=0)
    # auth: how many tokens may live below one token, or by one user's or role's logins, and secret ids
    # of one AppRole; counted in sixteen parts, so small limits would be inexact
    tokens_per_tree: int = Field(default=16_384, ge=1024)
    secret_ids_per_approle: int = Field(default=16_384, ge=1024)
    # auth: where Kubernetes puts the token with which it asks for reviews, and the only server it is sent to
    reviewer_token_file: Path | None = None
    reviewer_host: str = Field(default="https://kubernetes.default.svc", pattern=r"^https://[^/?#@\s]+/?$")
    etcd_quota_mib: int = Field(default=2048, ge=16)
    probe_listen: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("etcd_endpoints", "seal_addresses", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("reviewer_host")
    @classmethod
    def _has_a_port(cls, value: str) -> str:
        try:
            _ = urlsplit(value).port
        except ValueError as error:
            raise ValueError("a port is a number from 0 to 65535") from error
        return value

    @model_validator(mode="after")
    def _has_somewhere_to_archive(self) -> Self:
        if self.audit_keep_days and self.audit_archive is None:
            raise ValueError(
                "STRONGBOX_AUDIT_KEEP_DAYS needs STRONGBOX_AUDIT_ARCHIVE: nothing is thrown away"
            )
        if 0 < self.audit_limit_mib < 256:
            raise ValueError("STRONGBOX_AUDIT_LIMIT_MIB is 256 or more: segments have 64 MiB")
        if self.audit_archive is not None:
            require_apart(self.audit_archive, self.data_dir)
        return self

    @property
    def session_ttl_s(self) -> int:
        """Seconds of an etcd session: 1.5 election timeouts (500 ms, Kubernetes 1000 ms), rounded up."""
        return 1 if self.profile == "local" else 2


def require_apart(archive: Path, log: Path) -> None:
    """Raise ValueError when one folder is the other or lies in it: what loses one would lose both."""
    one, other = archive.resolve(), log.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ValueError("the archive has to be a folder apart from the log's")


def load(service: str, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises ConfigError."""
    values = _from_environment(environ)
    named = values.pop("config", None)
    if named:
        values = {**_from_file(Path(named)), **values}
    values["service"] = service
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        # The text of `error` quotes the input; each message and its setting's name are enough.
        problems = (f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigError("; ".join(problems)) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    known = {*Settings.model_fields, "config"} - {"service"}
    pairs = ((name, environ.get(PREFIX + name.upper(), "").strip()) for name in known)
    return {name: value for name, value in pairs if value}


def _from_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {type(error).__name__}") from None
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        name = key.strip().removeprefix(PREFIX).lower()
        if not equals or name not in Settings.model_fields or name == "service":
            raise ConfigError(f"{path}:{number}: not a setting")
        values[name] = value.strip()
    return values
