"""Who is at the other end of a connection, by the one SPIFFE id in its certificate, not by what it says.

    spiffe://strongbox/gateway · spiffe://strongbox/operator · spiffe://strongbox/kv · spiffe://strongbox/seal/0

The certificate was verified by the TLS handshake against the cluster's own authority. gRPC shows
`peer_spiffe_id` only when the certificate has exactly one URI name, as the SPIFFE standard demands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from strongbox.config import SERVICES
from strongbox.errors import PermissionDenied

TRUST_DOMAIN = "strongbox"
GATEWAY = "gateway"
OPERATOR = "operator"
KNOWN = frozenset((*SERVICES, GATEWAY, OPERATOR))
_FORM = re.compile(rf"spiffe://{TRUST_DOMAIN}/([a-z]+)(?:/(0|[1-9][0-9]{{0,3}}))?")


class Peer(NamedTuple):
    """A service by name; seal replicas have an ordinal as well."""

    service: str
    ordinal: int | None = None

    def __str__(self) -> str:
        return self.service if self.ordinal is None else f"{self.service}/{self.ordinal}"


def peer_of(context: Any) -> Peer:
    """The peer of a call (a grpc.aio.ServicerContext). Raises PermissionDenied when it has no known name."""
    return parse_peer(_spiffe_id(context.auth_context()))


@lru_cache(maxsize=256)
def parse_peer(spiffe_id: str) -> Peer:
    """`spiffe://strongbox/<service>[/<ordinal>]`. Raises PermissionDenied."""
    found = _FORM.fullmatch(spiffe_id)
    if found is None or found[1] not in KNOWN:
        raise PermissionDenied("the certificate names no known service")
    return Peer(found[1], int(found[2]) if found[2] else None)


def _spiffe_id(properties: Mapping[str, Iterable[bytes]]) -> str:
    values = tuple(properties.get("peer_spiffe_id", ()))
    return values[0].decode("ascii", "replace") if len(values) == 1 else ""
