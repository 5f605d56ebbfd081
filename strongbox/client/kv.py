"""Secrets and their versions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from strongbox.client.conversions import from_struct, to_duration, to_struct
from strongbox.client.transport import Wire
from strongbox.errors import InvalidInput, NotInitialized, Sealed, StrongBoxError, Unavailable
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.kv.v1.kv_service_pb2_grpc import KVServiceStub
from strongbox.paths import DirectoryPath, SecretPath
from strongbox.rpc.error_mapping import from_status

Value = str | bytes | Mapping[str, Any]
_REOPEN = 0.5  # seconds between two tries to go on with a watch


@dataclass(frozen=True, slots=True)
class Secret:
    """One version's value, which is never printed: text, bytes, or a JSON object. `lease_ttl` in seconds."""

    path: str
    version: int
    value: str | bytes | dict[str, Any] = field(repr=False)
    created_at: datetime
    lease_id: str  # empty: read without a lease, for etcd's space is nearly used up
    lease_ttl: int
    lease_expires_at: datetime
    revision: str


class Change(NamedTuple):
    """One version of one secret has changed; `version` 0: the secret was removed."""

    path: str
    version: int
    kind: str
    revision: str


class Secrets:
    """Values below `secret/`; paths are given without that word, as `app/db`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = KVServiceStub(wire.channel)

    def put(
        self, path: str, value: Value, *, cas: int | None = None, ttl: str | int | None = None
    ) -> pb.WriteSecretResponse:
        """Make a new version. `cas`: the version that must be current (0: none), else VersionMismatch."""
        request = pb.WriteSecretRequest(path=SecretPath.parse(path).text, cas=cas, ttl=to_duration(ttl))
        match value:
            case str():
                request.value = value
            case bytes():
                request.binary = value
            case Mapping():
                request.data.CopyFrom(to_struct(value))
            case _:
                raise InvalidInput("a value is text, bytes or a JSON object")
        return self._wire.call(self._stub.WriteSecret, request)

    def get(self, path: str, version: int | None = None) -> Secret:
        """One version, the newest unless named. Raises NotFound, VersionDeleted, VersionDestroyed."""
        request = pb.ReadSecretRequest(path=SecretPath.parse(path).text, version=version)
        return _to_secret(self._wire.call(self._stub.ReadSecret, request))

    def get_many(self, wanted: Sequence[str | tuple[str, int]]) -> list[Secret | StrongBoxError]:
        """1 to 256 secrets as they stood at one revision: for each its newest version, or the one named.

        What is wrong with one of them stands in its place, as the error that `get` would raise.
        """
        request = pb.BatchReadSecretsRequest(requests=[_reference(one) for one in wanted])
        answer = self._wire.call(self._stub.BatchReadSecrets, request)
        return [_to_result(one) for one in answer.results]

    def watch(self, prefix: str = "", from_revision: str = "") -> Iterator[Change]:
        """What changes below a directory, for ever, over broken connections; nothing is left out or repeated.

        `from_revision`: the first one wanted, as in an answer; from now on when empty. A change of the kind
        RESYNC says that earlier ones cannot be had any more: read anew what matters.
        """
        directory, last, seen = DirectoryPath.parse(prefix).text, from_revision, set[Change]()
        while True:
            request = pb.WatchSecretsRequest(prefix=directory, from_revision=last)
            try:
                for event in self._wire.stream(self._stub.WatchSecrets, request):
                    change = Change(event.path, event.version, event.kind, event.revision)
                    if change in seen:
                        continue
                    seen = {change} if event.revision != last else seen | {change}
                    last = event.revision
                    yield change
            except StrongBoxError as error:
                # Before the first change there is no revision to go on from.
                if not last or not _is_broken(error):
                    raise
            time.sleep(_REOPEN)

    def delete(self, path: str, versions: Sequence[int] = ()) -> pb.DeleteSecretVersionsResponse:
        """Soft delete versions, the newest unless named; `undelete` takes it back."""
        request = pb.DeleteSecretVersionsRequest(path=SecretPath.parse(path).text, versions=versions)
        return self._wire.call(self._stub.DeleteSecretVersions, request)

    def undelete(self, path: str, versions: Sequence[int]) -> pb.UndeleteSecretVersionsResponse:
        """Take a soft delete back."""
        request = pb.UndeleteSecretVersionsRequest(path=SecretPath.parse(path).text, versions=versions)
        return self._wire.call(self._stub.UndeleteSecretVersions, request)

    def destroy(self, path: str, versions: Sequence[int]) -> pb.DestroySecretVersionsResponse:
        """Remove versions for good."""
        request = pb.DestroySecretVersionsRequest(path=SecretPath.parse(path).text, versions=versions)
        return self._wire.call(self._stub.DestroySecretVersions, request)

    def metadata(self, path: str) -> pb.ReadSecretMetadataResponse:
        """Everything about a secret but its values."""
        request = pb.ReadSecretMetadataRequest(path=SecretPath.parse(path).text)
        return self._wire.call(self._stub.ReadSecretMetadata, request)

    def update_metadata(
        self,
        path: str,
        *,
        max_versions: int | None = None,
        cas_required: bool | None = None,
        custom: Mapping[str, str] | None = None,
    ) -> pb.UpdateSecretMetadataResponse:
        """Change the settings that are given; `custom` replaces all of it, an empty one empties it."""
        request = pb.UpdateSecretMetadataRequest(
            path=SecretPath.parse(path).text,
            max_versions=max_versions,
            cas_required=cas_required,
            custom=custom,
            clear_custom=custom is not None and not custom,
        )
        return self._wire.call(self._stub.UpdateSecretMetadata, request)

    def delete_metadata(self, path: str) -> pb.DeleteSecretMetadataResponse:
        """Remove the secret, all versions and its metadata, for good."""
        request = pb.DeleteSecretMetadataRequest(path=SecretPath.parse(path).text)
        return self._wire.call(self._stub.DeleteSecretMetadata, request)

    def list(self, prefix: str = "", *, recursive: bool = False) -> Iterator[str]:
        """Names below a directory, page by page as they are asked for; a directory's name ends in a slash."""
        directory, token = DirectoryPath.parse(prefix).text, ""
        while True:
            request = pb.ListSecretsRequest(prefix=directory, recursive=recursive, page_token=token)
            page = self._wire.call(self._stub.ListSecrets, request)
            yield from page.names
            token = page.next_page_token
            if not token:
                return


def _is_broken(error: StrongBoxError) -> bool:
    """Whether a stream ended because a connection or a replica was lost, and not by a refusal."""
    if isinstance(error, Unavailable):
        return not isinstance(error, Sealed | NotInitialized)
    return "request_id" not in error.metadata  # no service said this


def _reference(wanted: str | tuple[str, int]) -> pb.SecretReference:
    path, version = (wanted, None) if isinstance(wanted, str) else wanted
    return pb.SecretReference(path=SecretPath.parse(path).text, version=version)


def _to_result(result: pb.BatchedSecret) -> Secret | StrongBoxError:
    return _to_secret(result.secret) if result.HasField("secret") else from_status(result.error)


def _to_secret(answer: pb.ReadSecretResponse) -> Secret:
    value: str | bytes | dict[str, Any]
    if answer.HasField("value"):
        value = answer.value
    elif answer.HasField("binary"):
        value = answer.binary
    else:
        value = from_struct(answer.data)
    return Secret(
        path=answer.path,
        version=answer.version,
        value=value,
        created_at=answer.created_at.ToDatetime(UTC),
        lease_id=answer.lease.id,
        lease_ttl=answer.lease.ttl,
        lease_expires_at=answer.lease.expires_at.ToDatetime(UTC),
        revision=answer.revision,
    )
