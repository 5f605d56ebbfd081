"""Each RPC of seal over native gRPC, through the gateway: what is promised when all is well."""

from __future__ import annotations

import pytest

from tests.support.clients import GrpcClient
from tests.support.cluster import Cluster
from tests.support.coverage import Fresh, covers
from tests.support.expect import eventually, refused

pytestmark = pytest.mark.cluster


@covers("GetHealth", "GetReady", "GetSealStatus")
def test_health_readiness_and_seal_status_need_no_token(cluster: Cluster) -> None:
    for node, name in enumerate(cluster.node_ids):
        with cluster.grpc("a token that is ignored", node) as anybody:
            health = anybody.call("GetHealth")
            assert (health.node_id, health.initialized, health.sealed) == (name, True, False)
            assert sorted(one.id for one in health.nodes) == cluster.node_ids
            assert health.leader in cluster.node_ids
            assert health.term >= 1
            eventually(10, anybody.call, "GetReady")
            status = anybody.call("GetSealStatus")
            assert (status.shares, status.threshold, status.sealed) == (3, 2, False)


@covers("Initialize", "Unseal")
def test_an_initialised_cluster_refuses_init_and_takes_shares_as_unsealed(cluster: Cluster) -> None:
    with cluster.grpc() as anybody:
        refused("INVALID_ARGUMENT/ALREADY_INITIALIZED", anybody.call, "Initialize")
        answer = anybody.call("Unseal", share=cluster.shares[0])
        assert (answer.sealed, answer.threshold) == (False, 2)


@covers("RotateKeys", "GetKeyStatus")
def test_rotating_begins_a_term_under_which_everything_is_still_read(
    native: GrpcClient, cluster: Cluster, fresh: Fresh
) -> None:
    path = fresh("rotated")
    native.call("WriteSecret", path=path, value="before")
    before = native.call("GetKeyStatus")
    assert before.wraps >= 1
    told = native.call("RotateKeys")
    assert told.term == before.term + 1
    assert told.installed_at.ToMilliseconds() > before.installed_at.ToMilliseconds()
    assert native.call("ReadSecret", path=path).value == "before"
    native.call("WriteSecret", path=path, value="after")
    assert native.call("ReadSecret", path=path).value == "after"

    def rewrapped() -> None:
        now = native.call("GetKeyStatus")
        assert (now.term, now.rewrap.done) == (told.term, now.rewrap.total)
        assert now.rewrap.total > 0

    eventually(30, rewrapped)
    assert native.call("ReadSecret", path=path, version=1).value == "before"
    made = native.call("CreateToken", policies=["default"])
    with cluster.grpc(made.token) as small:
        refused("PERMISSION_DENIED/PERMISSION_DENIED", small.call, "RotateKeys")
        refused("PERMISSION_DENIED/PERMISSION_DENIED", small.call, "GetKeyStatus")


@covers("StartRekey", "UpdateRekey", "VerifyRekey", "CancelRekey")
def test_a_rekey_is_driven_by_shares_and_its_nonce(cluster: Cluster) -> None:
    """To its end it is tried over seal processes of their own; here the shares must stay."""
    with cluster.grpc("a token that is ignored") as anybody, cluster.grpc("", 2) as other:
        begun = anybody.call("StartRekey", share=cluster.shares[0], shares=5, threshold=3)
        assert (begun.progress, begun.complete) == ("1/2", False)
        refused("INVALID_ARGUMENT/INVALID_ARGUMENT", other.call, "StartRekey", share=cluster.shares[1])
        refused("PERMISSION_DENIED", other.call, "CancelRekey", nonce="a guess")
        refused("PERMISSION_DENIED", other.call, "UpdateRekey", nonce="", share=cluster.shares[1])
        done = other.call("UpdateRekey", nonce=begun.nonce, share=cluster.shares[1])
        assert (done.complete, len(done.shares), done.threshold) == (True, 5, 3)
        told = anybody.call("VerifyRekey", nonce=begun.nonce, share=done.shares[0])
        assert (told.progress, told.complete) == ("1/3", False)
        other.call("CancelRekey", nonce=begun.nonce)
        refused("INVALID_ARGUMENT", other.call, "VerifyRekey", nonce=begun.nonce, share=done.shares[1])
        assert not anybody.call("Unseal", share=cluster.shares[2]).sealed


@covers("StartGenerateRoot", "UpdateGenerateRoot", "CancelGenerateRoot")
def test_a_root_token_is_made_by_shares(cluster: Cluster) -> None:
    with cluster.grpc() as anybody, cluster.grpc("", 1) as other:
        first = anybody.call("StartGenerateRoot", share=cluster.shares[0])
        other.call("CancelGenerateRoot", nonce=first.nonce)
        begun = anybody.call("StartGenerateRoot", share=cluster.shares[0])
        done = other.call("UpdateGenerateRoot", nonce=begun.nonce, share=cluster.shares[2])
        assert (begun.root_token, done.complete) == ("", True)
        with cluster.grpc(done.root_token) as root:
            assert list(root.call("LookupSelf").policies) == ["root"]
            root.call("RevokeSelf")


@covers("Seal")
def test_seal_is_for_sudo_only(cluster: Cluster, native: GrpcClient) -> None:
    """That it seals is scenario S1; here the cluster must go on."""
    made = native.call("CreateToken", policies=["default"])
    with cluster.grpc(made.token) as small:
        refused("PERMISSION_DENIED/PERMISSION_DENIED", small.call, "Seal")
