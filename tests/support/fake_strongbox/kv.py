"""The fake of KVService."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from strongbox.errors import NotFound, Unauthenticated, Unavailable, VersionMismatch
from strongbox.kv.v1 import kv_service_pb2 as kv_pb
from strongbox.kv.v1 import kv_service_pb2_grpc as kv_grpc
from strongbox.rpc.error_mapping import to_status
from tests.support.fake_strongbox.world import CREATED, REQUEST_ID, World, page_of, refuse


class FakeKV(kv_grpc.KVServiceServicer):
    """Versions in a list."""

    def __init__(self, world: World) -> None:
        self.world = world

    def WriteSecret(self, request: kv_pb.WriteSecretRequest, context: Any) -> kv_pb.WriteSecretResponse:
        self.world.admit("WriteSecret", request, context)
        versions = self.world.secrets.setdefault(request.path, [])
        if request.HasField("cas") and request.cas != len(versions):
            refuse(context, VersionMismatch())
        versions.append(request)
        return kv_pb.WriteSecretResponse(
            path=request.path, version=len(versions), created_at=CREATED, revision="9007199254740993"
        )

    def ReadSecret(self, request: kv_pb.ReadSecretRequest, context: Any) -> kv_pb.ReadSecretResponse:
        self.world.admit("ReadSecret", request, context)
        versions = self.world.secrets.get(request.path, [])
        number = request.version if request.HasField("version") else len(versions)
        if not 0 < number <= len(versions):
            refuse(context, NotFound())
        written = versions[number - 1]
        answer = kv_pb.ReadSecretResponse(
            path=request.path, version=number, created_at=CREATED, revision="5",
            lease=kv_pb.ReadLease(id="lease-1", ttl=60, expires_at=CREATED),
        )  # fmt: skip
        for name in ("value", "binary"):
            if written.HasField(name):  # type: ignore[arg-type]
                setattr(answer, name, getattr(written, name))
        if written.HasField("data"):
            answer.data.CopyFrom(written.data)
        return answer

    def DeleteSecretVersions(self, request: Any, context: Any) -> kv_pb.DeleteSecretVersionsResponse:
        self.world.admit("DeleteSecretVersions", request, context)
        return kv_pb.DeleteSecretVersionsResponse(path=request.path, versions=request.versions or [1])

    def UndeleteSecretVersions(self, request: Any, context: Any) -> kv_pb.UndeleteSecretVersionsResponse:
        self.world.admit("UndeleteSecretVersions", request, context)
        return kv_pb.UndeleteSecretVersionsResponse(path=request.path, versions=request.versions)

    def DestroySecretVersions(self, request: Any, context: Any) -> kv_pb.DestroySecretVersionsResponse:
        self.world.admit("DestroySecretVersions", request, context)
        return kv_pb.DestroySecretVersionsResponse(path=request.path, versions=request.versions)

    def ReadSecretMetadata(self, request: Any, context: Any) -> kv_pb.ReadSecretMetadataResponse:
        self.world.admit("ReadSecretMetadata", request, context)
        return kv_pb.ReadSecretMetadataResponse(path=request.path, current_version=1, custom={"team": "a"})

    def UpdateSecretMetadata(self, request: Any, context: Any) -> kv_pb.UpdateSecretMetadataResponse:
        self.world.admit("UpdateSecretMetadata", request, context)
        return kv_pb.UpdateSecretMetadataResponse(path=request.path)

    def DeleteSecretMetadata(self, request: Any, context: Any) -> kv_pb.DeleteSecretMetadataResponse:
        self.world.admit("DeleteSecretMetadata", request, context)
        self.world.secrets.pop(request.path, None)
        return kv_pb.DeleteSecretMetadataResponse(path=request.path)

    def ListSecrets(self, request: kv_pb.ListSecretsRequest, context: Any) -> kv_pb.ListSecretsResponse:
        self.world.admit("ListSecrets", request, context)
        names, token = page_of(sorted(self.world.secrets), request.page_token, self.world.page)
        return kv_pb.ListSecretsResponse(names=names, next_page_token=token)

    def BatchReadSecrets(self, request: Any, context: Any) -> kv_pb.BatchReadSecretsResponse:
        self.world.admit("BatchReadSecrets", request, context)
        results = [self._result(one) for one in request.requests]
        return kv_pb.BatchReadSecretsResponse(revision="5", results=results)

    def _result(self, one: kv_pb.SecretReference) -> kv_pb.BatchedSecret:
        written = self.world.secrets.get(one.path)
        if not written:
            return kv_pb.BatchedSecret(error=to_status(NotFound(), REQUEST_ID))
        secret = kv_pb.ReadSecretResponse(path=one.path, version=len(written), value=written[-1].value)
        return kv_pb.BatchedSecret(secret=secret)

    def WatchSecrets(self, request: Any, context: Any) -> Iterator[kv_pb.WatchSecretsResponse]:
        """Changes 1 to 5, two at revision 2 and all else at its own; the stream breaks after each third."""
        self.world.admit("WatchSecrets", request, context)
        first = int(request.from_revision or 1)
        told = [
            (name, revision)
            for name, revision in zip("abcde", (1, 2, 2, 3, 4), strict=True)
            if revision >= first
        ]
        for name, revision in told[:3]:
            yield kv_pb.WatchSecretsResponse(path=name, version=1, kind="WRITTEN", revision=str(revision))
        refuse(context, Unavailable() if told[3:] else Unauthenticated())
