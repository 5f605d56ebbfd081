"""A StrongBox in memory behind a real gRPC server, for tests of the client and the command.

It keeps what it is told and refuses as the real one does, by the same errors over the same border
(strongbox.rpc.statuses). It neither encrypts nor authorizes: a token is good when it is `TOKEN`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from strongbox.audit.v1 import audit_service_pb2 as audit_pb
from strongbox.audit.v1 import audit_service_pb2_grpc as audit_grpc
from strongbox.auth.v1 import auth_service_pb2 as auth_pb
from strongbox.auth.v1 import auth_service_pb2_grpc as auth_grpc
from strongbox.errors import (
    NotFound,
    RepeatedShare,
    Sealed,
    StrongBoxError,
    Unauthenticated,
    Unavailable,
    VersionMismatch,
    WrongShare,
)
from strongbox.kv.v1 import kv_service_pb2 as kv_pb
from strongbox.kv.v1 import kv_service_pb2_grpc as kv_grpc
from strongbox.lease.v1 import lease_service_pb2 as lease_pb
from strongbox.lease.v1 import lease_service_pb2_grpc as lease_grpc
from strongbox.rpc.statuses import to_answer, to_status
from strongbox.seal.v1 import seal_service_pb2 as seal_pb
from strongbox.seal.v1 import seal_service_pb2_grpc as seal_grpc

TOKEN = "sbt_good"
SHARES = ("c2hhcmUtMQ", "c2hhcmUtMg", "c2hhcmUtMw")
REQUEST_ID = "7d9f0c1e-0000-4000-8000-000000000001"
CREATED = Timestamp(seconds=1_700_000_000)
KEY_FILE = "1:" + "ab" * 32 + "\n"


@dataclass
class World:
    """What the fake knows, and what was asked of it."""

    sealed: bool = False
    progress: set[str] = field(default_factory=set)
    secrets: dict[str, list[kv_pb.WriteSecretRequest]] = field(default_factory=dict)
    policies: dict[str, list[auth_pb.PolicyRule]] = field(default_factory=dict)
    accessors: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    entries: int = 0
    failure: StrongBoxError | None = None
    delay: float = 0.0
    page: int = 2
    asked: list[tuple[str, Any]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    deadlines: list[float] = field(default_factory=list)
    target: str = ""

    def last(self) -> Any:
        """The newest request."""
        return self.asked[-1][1]

    def admit(self, name: str, request: Any, context: Any, *, open_to_all: bool = False) -> None:
        """What every call goes through."""
        self.asked.append((name, request))
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.deadlines.append(float(context.time_remaining() or 0.0))
        time.sleep(self.delay)
        if self.failure is not None:
            refuse(context, self.failure)
        if open_to_all:
            return
        if self.sealed:
            refuse(context, Sealed())
        if self.metadata.get("authorization") != f"Bearer {TOKEN}":
            refuse(context, Unauthenticated())


def refuse(context: Any, error: StrongBoxError) -> None:
    """End the call as the real border does."""
    answer = to_answer(error, REQUEST_ID)
    context.set_trailing_metadata(answer.trailing)
    context.abort(answer.code, answer.message)


@contextmanager
def serving(world: World) -> Iterator[World]:
    """Run the fake on a free port; `world.target` is its host:port."""
    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool)
    seal_grpc.add_SealServiceServicer_to_server(FakeSeal(world), server)
    kv_grpc.add_KVServiceServicer_to_server(FakeKV(world), server)
    auth_grpc.add_AuthServiceServicer_to_server(FakeAuth(world), server)
    lease_grpc.add_LeaseServiceServicer_to_server(FakeLease(world), server)
    audit_grpc.add_AuditServiceServicer_to_server(FakeAudit(world), server)
    world.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield world
    finally:
        server.stop(None).wait(5.0)
        pool.shutdown()


def page_of(names: list[str], token: str, size: int) -> tuple[list[str], str]:
    """A page and the next one's token."""
    start = int(token or 0)
    more = start + size < len(names)
    return names[start : start + size], str(start + size) if more else ""


class FakeSeal(seal_grpc.SealServiceServicer):
    """Two of three shares unseal."""

    def __init__(self, world: World) -> None:
        self.world = world

    def Initialize(self, request: seal_pb.InitializeRequest, context: Any) -> seal_pb.InitializeResponse:
        self.world.admit("Initialize", request, context, open_to_all=True)
        return seal_pb.InitializeResponse(
            shares=SHARES[: request.shares], threshold=request.threshold, root_token=TOKEN
        )

    def Unseal(self, request: seal_pb.UnsealRequest, context: Any) -> seal_pb.UnsealResponse:
        self.world.admit("Unseal", request, context, open_to_all=True)
        if request.share not in SHARES:
            refuse(context, WrongShare())
        if request.reset:
            self.world.progress.clear()
        if self.world.sealed and request.share in self.world.progress:
            refuse(context, RepeatedShare())
        self.world.progress.add(request.share)
        if len(self.world.progress) == 2:
            self.world.sealed = False
        return seal_pb.UnsealResponse(sealed=self.world.sealed, threshold=2, progress=self._progress())

    def Seal(self, request: seal_pb.SealRequest, context: Any) -> seal_pb.SealResponse:
        self.world.admit("Seal", request, context)
        self.world.sealed = True
        return seal_pb.SealResponse(sealed=True, confirmed=["node-1", "node-2"], unconfirmed=["node-3"])

    def GetSealStatus(self, request: Any, context: Any) -> seal_pb.GetSealStatusResponse:
        self.world.admit("GetSealStatus", request, context, open_to_all=True)
        return seal_pb.GetSealStatusResponse(
            initialized=True, sealed=self.world.sealed, threshold=2, shares=3, progress=self._progress()
        )

    def GetHealth(self, request: Any, context: Any) -> seal_pb.GetHealthResponse:
        self.world.admit("GetHealth", request, context, open_to_all=True)
        return seal_pb.GetHealthResponse(
            initialized=True, sealed=self.world.sealed, ready=not self.world.sealed, node_id="node-1"
        )

    def GetReady(self, request: Any, context: Any) -> seal_pb.GetReadyResponse:
        self.world.admit("GetReady", request, context, open_to_all=True)
        if self.world.sealed:
            refuse(context, Sealed())
        return seal_pb.GetReadyResponse(ready=True, node_id="node-1")

    def _progress(self) -> str:
        return f"{len(self.world.progress)}/2"


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


class FakeAuth(auth_grpc.AuthServiceServicer):
    """Tokens by accessor, policies by name."""

    def __init__(self, world: World) -> None:
        self.world = world

    def CreateToken(self, request: auth_pb.CreateTokenRequest, context: Any) -> auth_pb.CreateTokenResponse:
        self.world.admit("CreateToken", request, context)
        accessor = f"acc-{len(self.world.accessors)}"
        self.world.accessors.append(accessor)
        return auth_pb.CreateTokenResponse(
            token="sbt_child", accessor=accessor, policies=request.policies, ttl=3600
        )

    def LookupSelf(self, request: Any, context: Any) -> auth_pb.LookupSelfResponse:
        self.world.admit("LookupSelf", request, context)
        return auth_pb.LookupSelfResponse(accessor="own", policies=["root"])

    def LookupToken(self, request: Any, context: Any) -> auth_pb.LookupTokenResponse:
        self.world.admit("LookupToken", request, context)
        if request.accessor not in self.world.accessors:
            refuse(context, NotFound())
        return auth_pb.LookupTokenResponse(accessor=request.accessor, ttl=60)

    def RenewSelf(self, request: Any, context: Any) -> auth_pb.RenewSelfResponse:
        self.world.admit("RenewSelf", request, context)
        return auth_pb.RenewSelfResponse(accessor="own", ttl=60)

    def RenewToken(self, request: Any, context: Any) -> auth_pb.RenewTokenResponse:
        self.world.admit("RenewToken", request, context)
        return auth_pb.RenewTokenResponse(accessor=request.accessor, ttl=60)

    def RevokeSelf(self, request: Any, context: Any) -> auth_pb.RevokeSelfResponse:
        self.world.admit("RevokeSelf", request, context)
        self.world.revoked.append("own")
        return auth_pb.RevokeSelfResponse(accessor="own")

    def RevokeToken(self, request: Any, context: Any) -> auth_pb.RevokeTokenResponse:
        self.world.admit("RevokeToken", request, context)
        self.world.revoked.append(request.accessor)
        return auth_pb.RevokeTokenResponse(accessor=request.accessor)

    def ListTokens(self, request: Any, context: Any) -> auth_pb.ListTokensResponse:
        self.world.admit("ListTokens", request, context)
        names, token = page_of(self.world.accessors, request.page_token, self.world.page)
        return auth_pb.ListTokensResponse(accessors=names, next_page_token=token)

    def WritePolicy(self, request: auth_pb.WritePolicyRequest, context: Any) -> auth_pb.WritePolicyResponse:
        self.world.admit("WritePolicy", request, context)
        self.world.policies[request.name] = list(request.rules)
        return auth_pb.WritePolicyResponse(name=request.name, revision="7")

    def ReadPolicy(self, request: Any, context: Any) -> auth_pb.ReadPolicyResponse:
        self.world.admit("ReadPolicy", request, context)
        if request.name not in self.world.policies:
            refuse(context, NotFound())
        return auth_pb.ReadPolicyResponse(name=request.name, rules=self.world.policies[request.name])

    def DeletePolicy(self, request: Any, context: Any) -> auth_pb.DeletePolicyResponse:
        self.world.admit("DeletePolicy", request, context)
        self.world.policies.pop(request.name, None)
        return auth_pb.DeletePolicyResponse(name=request.name)

    def ListPolicies(self, request: Any, context: Any) -> auth_pb.ListPoliciesResponse:
        self.world.admit("ListPolicies", request, context)
        names, token = page_of(sorted(self.world.policies), request.page_token, self.world.page)
        return auth_pb.ListPoliciesResponse(names=names, next_page_token=token)


class FakeLease(lease_grpc.LeaseServiceServicer):
    """Three leases of every path."""

    def __init__(self, world: World) -> None:
        self.world = world

    def GetLease(self, request: Any, context: Any) -> lease_pb.GetLeaseResponse:
        self.world.admit("GetLease", request, context)
        return lease_pb.GetLeaseResponse(id=request.id, state="ACTIVE")

    def ListLeases(self, request: Any, context: Any) -> lease_pb.ListLeasesResponse:
        self.world.admit("ListLeases", request, context)
        names, token = page_of(["l-1", "l-2", "l-3"], request.page_token, self.world.page)
        leases = [lease_pb.Lease(id=name, state="ACTIVE", path=request.path) for name in names]
        return lease_pb.ListLeasesResponse(leases=leases, next_page_token=token)

    def RevokeLease(self, request: Any, context: Any) -> lease_pb.RevokeLeaseResponse:
        self.world.admit("RevokeLease", request, context)
        return lease_pb.RevokeLeaseResponse(id=request.id, state="REVOKED")


class FakeAudit(audit_grpc.AuditServiceServicer):
    """`world.entries` entries."""

    def __init__(self, world: World) -> None:
        self.world = world

    def ListEntries(self, request: Any, context: Any) -> audit_pb.ListEntriesResponse:
        self.world.admit("ListEntries", request, context)
        last = min(request.from_index + (request.limit or 100), self.world.entries)
        entries = [
            audit_pb.Entry(index=index, op="ReadSecret", path="secret/a", outcome="ok")
            for index in range(request.from_index, last)
        ]
        return audit_pb.ListEntriesResponse(entries=entries, head=audit_pb.Head(index=self.world.entries - 1))

    def ExportKey(self, request: Any, context: Any) -> audit_pb.ExportKeyResponse:
        self.world.admit("ExportKey", request, context)
        return audit_pb.ExportKeyResponse(key=KEY_FILE)
