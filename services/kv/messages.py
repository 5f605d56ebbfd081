"""Between the wire and the domain: checks requests and makes answers. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from services.kv import value_encoding, versions
from services.kv.batch_read import MOST, Item, Result
from services.kv.read_secret import Taken
from services.kv.secrets import Wanted
from services.kv.versions import Settings
from services.kv.watching.changes import Change
from strongbox.durations import parse_duration
from strongbox.errors import InvalidInput, StrongBoxError, TooLarge
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.lease_records.read_lease import Held
from strongbox.paths import SecretPath
from strongbox.rpc.error_mapping import to_status
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import kv_records_pb2 as storage

MOST_OF_PATHS = 32 << 10  # bytes of all paths of one call that reads many
MAX_CUSTOM = 64  # entries
MAX_CUSTOM_KEY = 128  # bytes
MAX_CUSTOM_VALUE = 512  # bytes


def wanted_of(request: pb.WriteSecretRequest) -> Wanted:
    """Raises `InvalidInput` and `TooLarge`."""
    ttl_s = parse_duration(request.ttl, "ttl")
    if ttl_s == 0:
        raise InvalidInput("ttl is at least one second")
    cas = request.cas if request.HasField("cas") else None
    if cas is not None and cas < 0:
        raise InvalidInput("cas is a version, or 0 for a secret that must not exist")
    return Wanted(value_encoding.plaintext_of(request), cas, ttl_s)


def version_of(request: pb.ReadSecretRequest | pb.SecretReference) -> int | None:
    """The version asked for; `None`: the newest. Raises `InvalidInput`."""
    if not request.HasField("version"):
        return None
    return numbers_of([request.version])[0]


def items_of(request: pb.BatchReadSecretsRequest) -> list[Item]:
    """The secrets asked for; an item's own faults are in the item. Raises `InvalidInput`, `TooLarge`."""
    if not request.requests:
        raise InvalidInput("requests names at least one secret")
    if len(request.requests) > MOST:
        raise TooLarge(f"requests names at most {MOST} secrets")
    # Each path is in an audit record, whether its secret may be read or not.
    if sum(len(one.path.encode()) for one in request.requests) > MOST_OF_PATHS:
        raise TooLarge(f"the paths of one call come to {MOST_OF_PATHS >> 10} KiB at most")
    return [_item_of(one) for one in request.requests]


def _item_of(reference: pb.SecretReference) -> Item:
    try:
        return Item(SecretPath.parse(reference.path), version_of(reference))
    except InvalidInput as refusal:
        return Item(refusal, None)


def numbers_of(numbers: Sequence[int], *, needed: bool = False) -> tuple[int, ...]:
    """Distinct version numbers, ascending. Raises `InvalidInput`."""
    if needed and not numbers:
        raise InvalidInput("versions names at least one version")
    if any(number < 1 for number in numbers):
        raise InvalidInput("a version is a number from 1 on")
    distinct = tuple(sorted(set(numbers)))
    if len(distinct) > versions.MAX_MAX_VERSIONS:
        raise InvalidInput(f"versions names at most {versions.MAX_MAX_VERSIONS}")
    return distinct


def settings_of(request: pb.UpdateSecretMetadataRequest) -> Settings:
    """Raises `InvalidInput` and `TooLarge`."""
    most = request.max_versions if request.HasField("max_versions") else None
    if most is not None and not 1 <= most <= versions.MAX_MAX_VERSIONS:
        raise InvalidInput(f"max_versions is 1 to {versions.MAX_MAX_VERSIONS}")
    cas_required = request.cas_required if request.HasField("cas_required") else None
    settings = Settings(most, cas_required, _custom_of(request))
    if settings == Settings(None, None, None):
        raise InvalidInput("nothing is to be changed; clear_custom empties the custom metadata")
    return settings


def _custom_of(request: pb.UpdateSecretMetadataRequest) -> dict[str, str] | None:
    """The new custom metadata. On the wire an empty map looks like none: hence `clear_custom`."""
    custom = dict(request.custom)
    if request.clear_custom:
        if custom:
            raise InvalidInput("custom and clear_custom exclude each other")
        return {}
    if len(custom) > MAX_CUSTOM:
        raise TooLarge(f"custom has at most {MAX_CUSTOM} entries")
    if "" in custom:
        raise InvalidInput("a key of the custom metadata is not empty")
    for key, value in custom.items():
        if len(key.encode()) > MAX_CUSTOM_KEY or len(value.encode()) > MAX_CUSTOM_VALUE:
            raise TooLarge(f"custom has keys of 1 to {MAX_CUSTOM_KEY} bytes, values up to {MAX_CUSTOM_VALUE}")
    return custom or None


def _lease_to_proto(lease: Held) -> pb.ReadLease:
    left_s = -(-(lease.expires_ms - lease.now_ms) // 1000)
    return pb.ReadLease(id=lease.id, ttl=left_s, expires_at=moment(lease.expires_ms))


def secret_to_proto(taken: Taken, revision: int) -> pb.ReadSecretResponse:
    """The only answer that holds a value; `revision`: one at which it was current. Raises `Internal`."""
    found = taken.found
    response = pb.ReadSecretResponse(
        path=taken.path.text,
        version=found.version.version,
        created_at=moment(found.version.created_ms),
        lease=_lease_to_proto(found.lease) if found.lease is not None else None,
        revision=str(revision),
    )
    value_encoding.fill(response, taken.open())
    return response


def result_to_proto(result: Result, revision: int, inbound: Inbound) -> pb.BatchedSecret:
    """One result of a batch: the secret, or the refusal that a single call would have got."""
    if isinstance(result, StrongBoxError):
        return pb.BatchedSecret(error=to_status(result, inbound.request_id))
    try:
        return pb.BatchedSecret(secret=secret_to_proto(result, revision))
    except StrongBoxError as refusal:
        return pb.BatchedSecret(error=to_status(refusal, inbound.request_id))


def change_to_proto(change: Change) -> pb.WatchSecretsResponse:
    """One event of a watch."""
    return pb.WatchSecretsResponse(
        path=change.path, version=change.version, kind=change.kind, revision=str(change.revision)
    )


def metadata_to_proto(
    path: SecretPath, head: storage.SecretHead, revision: int
) -> pb.ReadSecretMetadataResponse:
    """A secret's settings, and when its versions were made, deleted, destroyed, purged, or expire."""
    return pb.ReadSecretMetadataResponse(
        path=path.text,
        current_version=head.current_version,
        max_versions=versions.max_versions_of(head),
        cas_required=head.cas_required,
        custom=head.custom,
        versions=[_version_to_proto(version) for version in head.versions],
        revision=str(revision),
    )


def moment(at_ms: int) -> Timestamp | None:
    """A moment in milliseconds since the epoch, as a timestamp; `None` for 0 (never)."""
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000) if at_ms else None


def _version_to_proto(version: storage.StoredVersion) -> pb.VersionMetadata:
    return pb.VersionMetadata(
        version=version.version,
        created_at=moment(version.created_ms),
        deleted_at=moment(version.deleted_ms),
        destroyed_at=moment(version.destroyed_ms),
        purged_at=moment(version.purged_ms),
        expires_at=moment(version.expires_ms),
    )
