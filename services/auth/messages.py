"""Between the wire and the domain: checks requests and makes answers. Nothing is decided here."""

from __future__ import annotations

from typing import Any, TypedDict

from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from services.auth import policy_delegation
from services.auth.logins import approles, kubernetes_roles, users
from services.auth.logins.bound_cidrs import parse_cidrs
from services.auth.logins.login_attempt import Login
from services.auth.logins.secret_ids import DEFAULT_TTL_S as SECRET_ID_TTL_S
from services.auth.logins.secret_ids import MAX_TTL_S as MAX_SECRET_ID_TTL_S
from services.auth.logins.secret_ids import Made, Narrowed
from services.auth.policies import Found
from services.auth.tokens import DEFAULT_TTL_S, MAX_TTL_S, Told, Wanted, require_sound, require_uses
from strongbox import paths
from strongbox.access.policy_engine import Rule, parse_rules
from strongbox.access.policy_validation import require_sensible
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.durations import parse_duration
from strongbox.errors import InvalidInput


class Created(TypedDict):
    """A new token: the answers of CreateToken and of every login."""

    token: str
    accessor: str
    policies: list[str]
    ttl: int
    expires_at: Timestamp | None
    renewable: bool
    parent: str


class Info(TypedDict):
    """What may be told of a token: everything but the token. `ttl` in seconds, rounded up."""

    accessor: str
    policies: list[str]
    ttl: int
    created_at: Timestamp
    expires_at: Timestamp | None
    renewable: bool
    parent: str
    display_name: str
    num_uses: int
    uses_left: int | None


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
    """Raises `InvalidInput`, naming the rule's index and the reason. Compares all rules."""
    rules = parse_rules((rule.path, tuple(rule.capabilities)) for rule in request.rules)
    return require_sensible(rules)


def created_to_proto(told: Told, token: str) -> Created:
    """The fields of an answer that holds a new token."""
    record = told.record
    return Created(
        token=token,
        accessor=record.accessor,
        policies=list(record.policies),
        ttl=ttl_of(told),
        expires_at=moment(record.expires_ms),
        renewable=bool(record.expires_ms),
        parent=record.parent,
    )


def token_made(told: Told, token: str) -> pb.CreateTokenResponse:
    """A new token with the settings that took effect, so that a misspelt field is noticed."""
    record = told.record
    return pb.CreateTokenResponse(
        **created_to_proto(told, token),
        max_ttl=max(0, record.max_expires_ms - record.created_ms) // 1000,
        period=record.period_s,
        display_name=record.display_name,
        num_uses=record.num_uses,
    )


def login_to_proto(login: Login) -> Created:
    """A login's answer: the fields of a new token."""
    return created_to_proto(login.told, login.token)


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
        uses_left=max(0, record.num_uses - record.uses_spent) if record.num_uses else None,
    )


def policy_to_proto(found: Found) -> pb.ReadPolicyResponse:
    """A policy as it was written."""
    rules = [pb.PolicyRule(path=rule.path, capabilities=rule.capabilities) for rule in found.rules]
    return pb.ReadPolicyResponse(name=found.name, rules=rules, revision=str(found.revision))


def token_ttl_of(value: struct_pb2.Value, field: str = "token_ttl") -> int:
    """Seconds for the tokens of a login; 0: the default. Raises `InvalidInput`."""
    return _seconds(value, field, MAX_TTL_S)


def user_to_proto(found: users.Found) -> pb.ReadUserResponse:
    """Everything of a user but the hash."""
    record = found.record
    return pb.ReadUserResponse(
        name=record.name,
        policies=record.policies,
        token_ttl=record.token_ttl_s or DEFAULT_TTL_S,
        password_changed_at=moment(record.password_changed_ms),
        failures=found.failures.failures,
        locked_until=moment(found.failures.locked_until_ms),
        revision=str(found.revision),
    )


def user_written(record: users.Record, revision: int) -> pb.WriteUserResponse:
    """The user as written."""
    return pb.WriteUserResponse(
        name=record.name,
        revision=str(revision),
        policies=record.policies,
        token_ttl=record.token_ttl_s or DEFAULT_TTL_S,
    )


def approle_of(request: pb.WriteAppRoleRequest) -> approles.Record:
    """Raises `InvalidInput`."""
    return approles.Record(
        name=paths.require_name(request.name, "approle"),
        policies=policy_delegation.require_names(request.policies),
        token_ttl_s=token_ttl_of(request.token_ttl),
        token_max_ttl_s=token_ttl_of(request.token_max_ttl, "token_max_ttl"),
        token_num_uses=require_uses(request.token_num_uses, "token_num_uses"),
        secret_id_ttl_s=_seconds(request.secret_id_ttl, "secret_id_ttl", MAX_SECRET_ID_TTL_S),
        secret_id_num_uses=require_uses(request.secret_id_num_uses, "secret_id_num_uses"),
        bound_cidrs=parse_cidrs(request.bound_cidrs),
    )


def approle_to_proto(found: approles.Found) -> pb.ReadAppRoleResponse:
    """A role with its role id."""
    return pb.ReadAppRoleResponse(**_approle(found.record, found.revision))


def approle_written(record: approles.Record, revision: int) -> pb.WriteAppRoleResponse:
    """The same, of a role that was just written."""
    return pb.WriteAppRoleResponse(**_approle(record, revision))


def narrowed_of(request: pb.CreateSecretIdRequest) -> Narrowed:
    """Raises `InvalidInput`."""
    return Narrowed(
        _seconds(request.ttl, "ttl", MAX_SECRET_ID_TTL_S),
        require_uses(request.num_uses, "num_uses"),
        parse_cidrs(request.bound_cidrs),
    )


def secret_id_to_proto(made: Made, secret_id: str) -> pb.CreateSecretIdResponse:
    """The only answer that holds a secret id."""
    record = made.record
    return pb.CreateSecretIdResponse(
        secret_id=secret_id,
        accessor=record.accessor,
        ttl=(record.expires_ms - made.now_ms) // 1000,
        expires_at=moment(record.expires_ms),
        num_uses=record.num_uses,
    )


def kubernetes_role_of(request: pb.WriteKubernetesRoleRequest) -> kubernetes_roles.Role:
    """Raises `InvalidInput`."""
    return kubernetes_roles.role_of(
        paths.require_name(request.name, "kubernetes role"),
        request.bound_service_account_names,
        request.bound_service_account_namespaces,
        request.audience,
        request.policies,
        token_ttl_of(request.token_ttl),
    )


def kubernetes_role_to_proto(found: kubernetes_roles.Found) -> pb.ReadKubernetesRoleResponse:
    """A role."""
    return pb.ReadKubernetesRoleResponse(**_kubernetes_role(found.record, found.revision))


def kubernetes_role_written(record: kubernetes_roles.Role, revision: int) -> pb.WriteKubernetesRoleResponse:
    """The same, of a role that was just written."""
    return pb.WriteKubernetesRoleResponse(**_kubernetes_role(record, revision))


def ttl_of(told: Told) -> int:
    """Seconds left, rounded up; 0: no expiry."""
    return -(-max(0, told.record.expires_ms - told.now_ms) // 1000)


def moment(at_ms: int) -> Timestamp | None:
    """A moment in milliseconds since the epoch, as a timestamp; `None` for 0 (never)."""
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000) if at_ms else None


def _approle(record: approles.Record, revision: int) -> dict[str, Any]:
    """A role's fields, with defaults for what was not given."""
    return {
        "name": record.name,
        "role_id": record.role_id,
        "policies": record.policies,
        "token_ttl": record.token_ttl_s or DEFAULT_TTL_S,
        "token_max_ttl": record.token_max_ttl_s or MAX_TTL_S,
        "token_num_uses": record.token_num_uses,
        "secret_id_ttl": record.secret_id_ttl_s or SECRET_ID_TTL_S,
        "secret_id_num_uses": record.secret_id_num_uses,
        "bound_cidrs": record.bound_cidrs,
        "revision": str(revision),
    }


def _kubernetes_role(record: kubernetes_roles.Role, revision: int) -> dict[str, Any]:
    return {
        "name": record.name,
        "bound_service_account_names": record.service_accounts,
        "bound_service_account_namespaces": record.namespaces,
        "audience": record.audience,
        "policies": record.policies,
        "token_ttl": record.token_ttl_s or DEFAULT_TTL_S,
        "revision": str(revision),
    }


def _seconds(value: struct_pb2.Value, field: str, most: int) -> int:
    seconds = parse_duration(value, field)
    if seconds is None:
        return 0
    if not 0 < seconds <= most:
        raise InvalidInput(f"{field} is one second to {most} seconds")
    return seconds
