"""Certificates in Kubernetes where there is no cert-manager: secrets in cert-manager's own form.

    strongbox-authority-tls    tls.crt, tls.key of the authority: for this Job's account alone
    strongbox-<name>-tls       tls.crt, tls.key, ca.crt; seal: strongbox-seal-<ordinal>-tls

* Run by a Job at first, then by a CronJob: what is good for longer than `renew_before_days` stays.
* The authority is made once. It is never replaced here, because everybody trusts it (docs/deploying.md).
* Every write names what it read, so two runs at once cannot leave a key beside another's certificate: a
  secret is one object, and the second writer is refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from strongbox.config import SERVICES
from strongbox.dev.authority import Authority, Leaf, Pair, ends_at
from strongbox.setup.settings import CertificateSettings

AUTHORITY = "strongbox-authority-tls"
_NAMES = (*(name for name in SERVICES if name != "seal"), "gateway", "operator", "upkeep")


class Secrets(Protocol):
    """What is asked of Kubernetes (strongbox.setup.kubernetes.Api)."""

    def read(self, name: str, /) -> dict[str, Any] | None: ...
    def put(self, name: str, data: dict[str, bytes], known: dict[str, Any] | None, /) -> None: ...


def ensure_certificates(secrets: Secrets, settings: CertificateSettings) -> list[str]:
    """Make what is missing or about to run out; the names of what was made. Raises Conflict, OSError."""
    made: list[str] = []
    authority = _authority(secrets, made)
    for name, leaf in leaves(settings.namespace, settings.seal_replicas):
        known = secrets.read(name)
        if known is not None and _is_good(known["data"], authority, settings):
            continue
        pair = authority.issue(leaf, dt.timedelta(days=settings.certificate_days))
        data = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.pair.certificate}
        secrets.put(name, data, known)
        made.append(name)
    return made


def leaves(namespace: str, seal_replicas: int) -> Iterator[tuple[str, Leaf]]:
    """Every secret's name, and whom its certificate is for."""
    for name in _NAMES:
        yield f"strongbox-{name}-tls", Leaf(name, name, _hosts(name, namespace))
    for ordinal in range(seal_replicas):
        leaf = Leaf("seal", f"seal/{ordinal}", _hosts("seal", namespace))
        yield f"strongbox-seal-{ordinal}-tls", leaf
    yield "strongbox-etcd-tls", Leaf("etcd", "etcd", _hosts("etcd", namespace))


def _hosts(name: str, namespace: str) -> tuple[str, ...]:
    """The service's name inside the cluster, and that of each pod of a StatefulSet (one label before it)."""
    service = f"strongbox-{name}.{namespace}.svc"
    return (
        f"strongbox-{name}",
        service,
        f"{service}.cluster.local",
        f"*.{service}",
        f"*.{service}.cluster.local",
    )


def _authority(secrets: Secrets, made: list[str]) -> Authority:
    known = secrets.read(AUTHORITY)
    if known is not None:
        return Authority.load(Pair(known["data"]["tls.crt"], known["data"]["tls.key"]))
    authority = Authority.create("StrongBox authority")
    secrets.put(AUTHORITY, {"tls.crt": authority.pair.certificate, "tls.key": authority.pair.key}, None)
    made.append(AUTHORITY)
    return authority


def _is_good(data: Mapping[str, bytes], authority: Authority, settings: CertificateSettings) -> bool:
    """Whether it is complete, of this authority, and good for long enough."""
    if data.get("ca.crt") != authority.pair.certificate or not data.get("tls.key"):
        return False
    try:
        ends = ends_at(data["tls.crt"])
    except (KeyError, ValueError):
        return False
    return ends > dt.datetime.now(dt.UTC) + dt.timedelta(days=settings.renew_before_days)
