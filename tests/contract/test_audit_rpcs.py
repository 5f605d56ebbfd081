"""Each RPC of audit over native gRPC, through the gateway: what is promised when all is well."""

from __future__ import annotations

import base64
import re

import grpc
import pytest

from strongbox.client import StrongBox
from tests.support.clients import GrpcClient
from tests.support.cluster import Cluster
from tests.support.coverage import Fresh, covers
from tests.support.expect import refused

pytestmark = pytest.mark.cluster


@covers("ListEntries", "ExportKey")
def test_what_was_acknowledged_is_in_the_audit_chain(native: GrpcClient, fresh: Fresh) -> None:
    path = fresh("audited")
    native.call("WriteSecret", path=path, value="x")
    refused("NOT_FOUND", native.call, "ReadSecret", path=path, version=9)
    listed = native.call("ListEntries", path=f"secret/{path}")
    assert (listed.entries[0].op, listed.entries[0].outcome) == ("WriteSecret", "ok")
    assert {one.op for one in listed.entries} == {"WriteSecret", "ReadSecret"}
    assert all(re.fullmatch("[0-9a-f]{64}", one.hmac) for one in listed.entries)
    assert listed.head.index >= listed.entries[-1].index
    assert native.call("ExportKey").key


@covers("ArchiveEntries")
def test_nothing_is_archived_where_there_is_no_archive(native: GrpcClient) -> None:
    refused("INVALID_ARGUMENT", native.call, "ArchiveEntries", before_index=0)
    assert native.call("ListEntries", limit=1).first_index == 0


@covers("FollowEntries")
def test_the_audit_chain_is_followed_until_the_token_may_no_longer(
    native: GrpcClient, cluster: Cluster, fresh: Fresh
) -> None:
    policy, path = fresh("follower"), fresh("followed")
    native.call("WritePolicy", name=policy, rules=[{"path": "audit", "capabilities": ["read"]}])
    made = native.call("CreateToken", policies=[policy])
    with cluster.grpc(made.token, 2) as own:
        stream = own.stream("FollowEntries", path=f"secret/{path}", from_index=0)
        native.call("WriteSecret", path=path, value="x")
        native.call("ReadSecret", path=path)
        assert [(one.entry.op, one.entry.version) for one in (next(stream), next(stream))] == [
            ("WriteSecret", 1), ("ReadSecret", 1),
        ]  # fmt: skip
        native.call("RevokeToken", accessor=made.accessor)
        native.call("WriteSecret", path=path, value="y")
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


@covers("GetCheckpoint", "GetProof", "GetPublicKey", "RotateAuditKey")
def test_checkpoints_and_proofs_are_verified_with_the_public_key_alone(
    native: GrpcClient, cluster: Cluster, fresh: Fresh
) -> None:
    address, token = cluster.gateways[2], cluster.root_token
    with StrongBox(address, token=token) as box:
        key = box.audit.public_key()
        old = box.audit.checkpoint(key)
        path = fresh("proved")
        native.call("WriteSecret", path=path, value="x")
        term = native.call("RotateAuditKey").term
        assert native.call("RotateAuditKey").term == term + 1
        (entry,) = box.audit.entries(path=f"secret/{path}")
        assert box.audit.prove(entry.index, key).size > entry.index >= old.size
        new = box.audit.checkpoint(key, since=old.note)
        assert new.size > old.size
    with cluster.rest(token, 0) as rest:
        proof = rest.call("GET", "/v1/audit/proof", index=entry.index, size=new.size, from_size=old.size)
        assert (proof["size"], proof["index"], proof["from_size"]) == (new.size, entry.index, old.size)
        assert base64.b64decode(proof["root_hash"]) == new.root
        assert set(rest.call("GET", "/v1/audit/checkpoint")) == {"checkpoint", "size", "root_hash"}
        assert "BEGIN PUBLIC KEY" in rest.call("GET", "/v1/audit/public-key")["public_key"]
