"""Certificates in Kubernetes where there is no cert-manager: secrets in cert-manager's own form.

    strongbox-authority-tls    tls.crt, tls.key of the authority: for the account of this command alone
    strongbox-<name>-tls       tls.crt, tls.key, ca.crt; seal: strongbox-seal-<ordinal>-tls

* Run by an init container at first, then by a CronJob: what is good for longer than `renew_before_days`
  stays.
* The authority is made once. It is never replaced here, because everybody trusts it (docs/recovering.md). If
  it is gone while anything is there that it may have signed, that is an error: no other one is made.
* Everybody trusts all certificates in the authority's `tls.crt`. The first one signs; further ones are the
  former or the next authority's, while people replace it.
* Every name that a process dials is in the certificate of what answers there, letter by letter: OpenSSL, gRPC
  and Go differ in whether they accept a wildcard over a name of few labels. A certificate whose names have
  changed is renewed at once.
* Every write names the version that it read, so two runs at once cannot leave a key beside another's
  certificate: a secret is one object, and the second writer is refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from strongbox.authority import Authority, Leaf, Pair, ends_at, is_for
from strongbox.config import SERVICES
from strongbox.setup.settings import CertificateSettings, is_address

AUTHORITY = "strongbox-authority-tls"
_AUDIT_REPLICAS = 5  # the most there may be: a name too many does no harm
_NAMES = (*(name for name in SERVICES if name != "seal"), "gateway", "operator", "upkeep")


class Secrets(Protocol):
    """What is asked of Kubernetes (strongbox.setup.kubernetes_api.Api)."""

    def read(self, name: str, /) -> dict[str, Any] | None: ...
    def put(self, name: str, data: dict[str, bytes], known: dict[str, Any] | None, /) -> None: ...


class AuthorityLost(Exception):
    """The authority's secret is gone, and others may hold what it has signed."""


def ensure_certificates(secrets: Secrets, settings: CertificateSettings) -> list[str]:
    """Make what is missing, misnamed or about to run out; the names of what was made.

    Raises Conflict, OSError, AuthorityLost.
    """
    made: list[str] = []
    wanted = [
        *leaves(settings.namespace, settings.seal_replicas, settings.etcd_replicas, settings.gateway_names)
    ]
    known = {name: secrets.read(name) for name, _ in wanted}
    signed = [name for name, secret in known.items() if secret is not None]
    authority, trusted = _authority(secrets, made, signed)
    for name, leaf in wanted:
        secret = known[name]
        if secret is not None and _is_good(secret["data"], trusted, leaf, settings):
            continue
        pair = authority.issue(leaf, dt.timedelta(days=settings.certificate_days))
        data = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": trusted}
        secrets.put(name, data, secret)
        made.append(name)
    return made


def leaves(
    namespace: str, seal_replicas: int, etcd_replicas: int = 3, gateway_names: Sequence[str] = ()
) -> Iterator[tuple[str, Leaf]]:
    """Every secret's name, and whom its certificate is for; etcd first, without which nothing starts.

    `gateway_names`: DNS names and IP addresses at which clients outside the cluster reach the gateway.
    """
    yield "strongbox-etcd-tls", Leaf("etcd", "etcd", _hosts("etcd", namespace, range(etcd_replicas)))
    for ordinal in range(seal_replicas):
        leaf = Leaf("seal", f"seal/{ordinal}", _hosts("seal", namespace, [ordinal]))
        yield f"strongbox-seal-{ordinal}-tls", leaf
    for name in _NAMES:
        ordinals = range(_AUDIT_REPLICAS) if name == "audit" else ()
        leaf = Leaf(name, name, _hosts(name, namespace, ordinals))
        yield f"strongbox-{name}-tls", _reached_at(leaf, gateway_names) if name == "gateway" else leaf


def _reached_at(leaf: Leaf, names: Sequence[str]) -> Leaf:
    """The same leaf, for these names and addresses as well."""
    addresses = tuple(name for name in names if is_address(name))
    hosts = tuple(name for name in names if name not in addresses)
    return replace(leaf, hosts=(*leaf.hosts, *hosts), addresses=(*leaf.addresses, *addresses))


def _hosts(name: str, namespace: str, ordinals: Iterable[int] = ()) -> tuple[str, ...]:
    """The service's name inside the cluster, and that of each pod of a StatefulSet, as it is dialled."""
    service = f"strongbox-{name}.{namespace}.svc"
    return (
        *(f"strongbox-{name}-{ordinal}.strongbox-{name}" for ordinal in ordinals),
        f"strongbox-{name}",
        service,
        f"{service}.cluster.local",
        f"*.{service}",
        f"*.{service}.cluster.local",
    )


def _authority(secrets: Secrets, made: list[str], signed: Sequence[str]) -> tuple[Authority, bytes]:
    """The authority that signs, and the PEM of all that are trusted."""
    known = secrets.read(AUTHORITY)
    if known is not None:
        trusted = known["data"]["tls.crt"]
        return Authority.load(Pair(trusted, known["data"]["tls.key"])), trusted
    if signed:
        raise AuthorityLost(
            f"there is no secret {AUTHORITY}, but {signed[0]} is there, which it may have signed: "
            "put the authority back, or remove all certificates to begin anew (docs/recovering.md)"
        )
    authority = Authority.create("StrongBox authority")
    secrets.put(AUTHORITY, {"tls.crt": authority.pair.certificate, "tls.key": authority.pair.key}, None)
    made.append(AUTHORITY)
    return authority, authority.pair.certificate


def _is_good(data: Mapping[str, bytes], trusted: bytes, leaf: Leaf, settings: CertificateSettings) -> bool:
    """Whether a secret is complete, names the trusted authorities and `leaf`, and is good for long enough."""
    if data.get("ca.crt") != trusted or not data.get("tls.key"):
        return False
    try:
        ends = ends_at(data["tls.crt"])
        if not is_for(data["tls.crt"], leaf):
            return False
    except (KeyError, ValueError):
        return False
    return ends > dt.datetime.now(dt.UTC) + dt.timedelta(days=settings.renew_before_days)
