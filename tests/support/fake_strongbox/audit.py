"""The fake of AuditService."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from strongbox.audit.v1 import audit_service_pb2 as audit_pb
from strongbox.audit.v1 import audit_service_pb2_grpc as audit_grpc
from strongbox.audit_log.checkpoint import sign
from strongbox.audit_log.merkle import prove_consistency, prove_inclusion, stored_place
from strongbox.crypto.ed25519 import to_pem
from strongbox.errors import Unauthenticated, Unavailable
from tests.support.fake_strongbox.world import KEY_FILE, World, refuse


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
        return audit_pb.ListEntriesResponse(
            entries=entries,
            head=audit_pb.Head(index=self.world.entries - 1),
            next_index=last if last < self.world.entries else None,
        )

    def FollowEntries(self, request: Any, context: Any) -> Iterator[audit_pb.FollowEntriesResponse]:
        """Entries 0 to 4; the stream breaks after each third."""
        self.world.admit("FollowEntries", request, context)
        left = range(request.from_index, 5)
        for index in left[:3]:
            yield audit_pb.FollowEntriesResponse(entry=audit_pb.Entry(index=index, op="ReadSecret"))
        refuse(context, Unavailable() if left[3:] else Unauthenticated())

    def GetCheckpoint(self, request: Any, context: Any) -> audit_pb.GetCheckpointResponse:
        self.world.admit("GetCheckpoint", request, context)
        told = self.world.log.checkpoint()
        return audit_pb.GetCheckpointResponse(
            checkpoint=sign(told, self.world.log.key), size=told.size, root_hash=told.root
        )

    def GetProof(self, request: Any, context: Any) -> audit_pb.GetProofResponse:
        self.world.admit("GetProof", request, context)
        log, told = self.world.log, self.world.log.checkpoint()
        answer = audit_pb.GetProofResponse(
            size=told.size, root_hash=told.root, checkpoint=sign(told, log.key)
        )
        if request.HasField("index"):
            answer.index, answer.leaf_hash = request.index, log.row[stored_place(0, request.index)]
            answer.inclusion_path.extend(prove_inclusion(request.index, told.size, log.row.__getitem__))
        if request.HasField("from_size"):
            answer.from_size = request.from_size
            path = prove_consistency(request.from_size, told.size, log.row.__getitem__)
            answer.consistency_path.extend(path)
        return answer

    def GetPublicKey(self, request: Any, context: Any) -> audit_pb.GetPublicKeyResponse:
        self.world.admit("GetPublicKey", request, context)
        return audit_pb.GetPublicKeyResponse(public_key=to_pem(self.world.log.key.public))

    def ArchiveEntries(self, request: Any, context: Any) -> audit_pb.ArchiveEntriesResponse:
        self.world.admit("ArchiveEntries", request, context)
        replica = audit_pb.ArchivedReplica(node_id="node-1", first_index=0)
        return audit_pb.ArchiveEntriesResponse(before_index=request.before_index, replicas=[replica])

    def RotateAuditKey(self, request: Any, context: Any) -> audit_pb.RotateAuditKeyResponse:
        self.world.admit("RotateAuditKey", request, context)
        return audit_pb.RotateAuditKeyResponse(term=2)

    def ExportKey(self, request: Any, context: Any) -> audit_pb.ExportKeyResponse:
        self.world.admit("ExportKey", request, context)
        return audit_pb.ExportKeyResponse(key=KEY_FILE)
