"""Between the wire and the domain: durations and times, nothing decided."""

from __future__ import annotations

from typing import TypedDict

from google.protobuf.timestamp_pb2 import Timestamp

from services.auth.policies import Found
from services.auth.tokens import Told, Wanted, require_sound
from strongbox.access.durations import parse_duration
from strongbox.access.policy import Rule, parse_rules
from strongbox.auth.v1 import auth_service_pb2 as pb


class Info(TypedDict):
    """What may be told of a token: everything but itself. `ttl` in seconds, rounded up."""

    accessor: str
    policies: list[str]
    ttl: int
    created_at: Timestamp
    expires_at: Timestamp | None
    renewable: bool
    parent: str
    display_name: str
    num_uses: int


def wanted_of(request: pb.CreateTokenRequest) -> Wanted:
    """Raises `InvalidInput`."""
    return require_sound(
        Wanted(
            policies=tuple(request.policies),
            ttl_s=parse_duration(request.ttl, "ttl"),
            max_ttl_s=parse_duration(request.max_ttl, "max_ttl"),
            period_s=parse_duration(request.period, "period"),
            display_name=request.display_name,
            num_uses=request.num_uses,
            orphan=request.orphan,
            no_default=request.no_default,
        )
    )


def rules_of(request: pb.WritePolicyRequest) -> tuple[Rule, ...]:
    """Raises `InvalidInput`, naming the rule's index and the reason."""
    return parse_rules((rule.path, tuple(rule.capabilities)) for rule in request.rules)


def created_to_proto(told: Told, token: str) -> pb.CreateTokenResponse:
    """The one answer that holds a token."""
    record = told.record
    return pb.CreateTokenResponse(
        token=token,
        accessor=record.accessor,
        policies=record.policies,
        ttl=ttl_of(told),
        expires_at=moment(record.expires_ms),
        renewable=bool(record.expires_ms),
        parent=record.parent,
    )


def info_to_proto(told: Told) -> Info:
    """The fields that LookupSelfResponse and LookupTokenResponse share."""
    record = told.record
    return Info(
        accessor=record.accessor,
        policies=list(record.policies),
        ttl=ttl_of(told),
        created_at=Timestamp(seconds=record.created_ms // 1000, nanos=record.created_ms % 1000 * 1_000_000),
        expires_at=moment(record.expires_ms),
        renewable=bool(record.expires_ms),
        parent=record.parent,
        display_name=record.display_name,
        num_uses=record.num_uses,
    )


def policy_to_proto(found: Found) -> pb.ReadPolicyResponse:
    """A policy as it was written."""
    rules = [pb.PolicyRule(path=rule.path, capabilities=rule.capabilities) for rule in found.rules]
    return pb.ReadPolicyResponse(name=found.name, rules=rules, revision=str(found.revision))


def ttl_of(told: Told) -> int:
    """Seconds left, rounded up; 0: no expiry."""
    return -(-max(0, told.record.expires_ms - told.now_ms) // 1000)


def moment(at_ms: int) -> Timestamp | None:
    """`None` for never."""
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000) if at_ms else None
