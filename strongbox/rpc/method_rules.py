"""What each RPC's rule (the option beside its REST path in the proto) says about who may call and how long.

An RPC without a rule is refused before the process starts: what nobody decided about is not served.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from strongbox.config import SERVICES
from strongbox.options.v1 import rule_pb2
from strongbox.rpc.peer_identity import GATEWAY, OPERATOR

LIMIT = 1.8  # seconds; the gateway gives up after 2
SLOW_LIMIT = 4.5  # seconds; the gateway gives up after 5
PUBLIC = frozenset((GATEWAY, OPERATOR))


class NoRule(Exception):
    """RPCs without a rule, or with one that cannot be kept."""


@dataclass(frozen=True, slots=True)
class Access:
    """One RPC: `limit` in seconds bounds a unary call, and a stream's first decision.

    `reveals`: its answer holds a secret (strongbox.rpc.revealing); no stream of answers may.
    """

    method: str
    peers: frozenset[str]
    limit: float
    unary: bool
    token_required: bool = False
    retryable: bool = False
    quiet: bool = False
    reveals: bool = False


ANYBODY = PUBLIC | frozenset(SERVICES)
INFRASTRUCTURE: tuple[Access, ...] = (
    Access("/grpc.health.v1.Health/Check", ANYBODY, LIMIT, unary=True, quiet=True),
    Access("/grpc.health.v1.Health/Watch", ANYBODY, LIMIT, unary=False, quiet=True),
    Access(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        frozenset((OPERATOR,)),
        LIMIT,
        unary=False,
    ),
)


def rules_of(full_name: str) -> list[Access]:
    """The access of every RPC of a service (`strongbox.kv.v1.KVService`).

    Raises `NoRule` naming those that have none, or one that cannot be kept; KeyError for an unknown
    service.
    """
    methods = descriptor_pool.Default().FindServiceByName(full_name).methods
    bare = [method.full_name for method in methods if not method.GetOptions().HasExtension(rule_pb2.rule)]
    if bare:
        raise NoRule(f"without a rule, and so not served: {', '.join(bare)}")
    found = [_access(full_name, method) for method in methods]
    if streams := [access.method for access in found if access.reveals and not access.unary]:
        raise NoRule(f"streams are not checked for each secret they tell: {', '.join(streams)}")
    return found


def table(services: Iterable[str]) -> dict[str, Access]:
    """All RPCs of these services, and health and reflection, by `/service/method`. Raises as `rules_of`."""
    found = [access for service in services for access in rules_of(service)]
    return {access.method: access for access in (*found, *INFRASTRUCTURE)}


def _access(service: str, method: MethodDescriptor) -> Access:
    rule = method.GetOptions().Extensions[rule_pb2.rule]
    return Access(
        method=f"/{service}/{method.name}",
        peers=frozenset(rule.peers) or PUBLIC,
        limit=SLOW_LIMIT if rule.slow else LIMIT,
        unary=not (method.client_streaming or method.server_streaming),
        token_required=rule.token_required,
        retryable=rule.retryable,
        reveals=rule.reveals,
    )
