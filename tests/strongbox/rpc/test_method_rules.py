"""Unlisted means refused."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from strongbox.auth.v1 import auth_service_pb2
from strongbox.kv.v1 import kv_service_pb2
from strongbox.rpc.method_rules import LIMIT, SLOW_LIMIT, NoRule, rules_of, table
from strongbox.seal.v1 import seal_peer_service_pb2, seal_service_pb2

PUBLIC = [
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (auth_service_pb2, "AuthService"), (kv_service_pb2, "KVService"), (seal_service_pb2, "SealService"),
    )
]  # fmt: skip
PEERS = seal_peer_service_pb2.DESCRIPTOR.services_by_name["SealPeerService"].full_name


@pytest.mark.parametrize("service", PUBLIC)
def test_public_rpcs_are_for_the_gateway_and_the_operator(service: str) -> None:
    assert {access.peers for access in rules_of(service)} == {frozenset(("gateway", "operator"))}


def test_rpcs_for_peers_are_for_nobody_else() -> None:
    found = {access.method.rpartition("/")[2]: access for access in rules_of(PEERS)}
    assert found["RelayShares"].peers == {"seal"}
    assert found["StreamKeys"].peers == {"kv", "auth", "lease", "audit"}
    assert not found["StreamKeys"].unary


def test_a_slow_rpc_has_more_time() -> None:
    found = {access.method.rpartition("/")[2]: access for access in rules_of(PUBLIC[2])}
    assert found["Initialize"].limit == SLOW_LIMIT
    assert found["GetHealth"].limit == LIMIT
    assert found["Seal"].token_required
    assert not found["Unseal"].token_required


def test_a_service_with_an_rpc_without_a_rule_is_refused_by_name() -> None:
    made = descriptor_pb2.FileDescriptorProto(name="test/bare.proto", package="test.bare", syntax="proto3")
    made.message_type.add(name="Empty")
    service = made.service.add(name="Bare")
    for name in ("Open", "Shut"):
        service.method.add(name=name, input_type=".test.bare.Empty", output_type=".test.bare.Empty")
    descriptor_pool.Default().Add(made)
    with pytest.raises(NoRule, match=r"test\.bare\.Bare\.Open, test\.bare\.Bare\.Shut"):
        rules_of("test.bare.Bare")


def test_health_is_for_everybody_of_ours_and_reflection_for_the_operator_alone() -> None:
    found = table(())
    assert "kv" in found["/grpc.health.v1.Health/Check"].peers
    reflections = [access for access in found.values() if "reflection" in access.method]
    assert {access.peers for access in reflections} == {frozenset(("operator",))}
