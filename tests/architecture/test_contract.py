"""What the protos promise: every RPC is decided about, and reached by REST or by peers, never by both."""

from __future__ import annotations

import re

import pytest
from google.api import annotations_pb2

from tests.support.surface import Rpc, all_rpcs, public_rpcs

LOGINS = {"LoginUser", "LoginAppRole", "LoginKubernetes"}
# By key shares and the nonce that a beginning gives, not by tokens.
BY_SHARES = {
    "StartRekey", "UpdateRekey", "VerifyRekey", "CancelRekey",
    "StartGenerateRoot", "UpdateGenerateRoot", "CancelGenerateRoot",
}  # fmt: skip
WITHOUT_TOKEN = {"Initialize", "Unseal", "GetSealStatus", "GetHealth", "GetReady", *LOGINS, *BY_SHARES}
# A repetition would make a second one of what cannot be told apart, or end what the first one gave.
NEVER_RETRIED = {
    "Initialize", "Seal", "CreateToken", "RevokeSelf", "ExportKey", "CreateSecretId", "IssueCredential",
    "RotatePostgresRoot", "RotateKeys", *LOGINS, *BY_SHARES,
}  # fmt: skip
CAPABILITIES = {"read", "write", "delete", "list", "metadata", "sudo"}
KNOWN_PEERS = {"seal", "kv", "auth", "lease", "audit"}


def names(rpc: Rpc) -> str:
    return rpc.full_name


@pytest.mark.parametrize("rpc", all_rpcs(), ids=names)
def test_every_rpc_has_a_rule(rpc: Rpc) -> None:
    assert rpc.rule.ByteSize() > 0


@pytest.mark.parametrize("rpc", all_rpcs(), ids=names)
def test_every_rpc_is_rest_or_for_peers(rpc: Rpc) -> None:
    assert bool(rpc.bindings) != bool(rpc.rule.peers)


@pytest.mark.parametrize("rpc", [rpc for rpc in all_rpcs() if rpc.rule.peers], ids=names)
def test_rpcs_for_peers_stand_in_services_for_peers_and_name_known_ones(rpc: Rpc) -> None:
    assert rpc.service.endswith("PeerService")
    assert set(rpc.rule.peers) <= KNOWN_PEERS


@pytest.mark.parametrize("rpc", public_rpcs(), ids=names)
def test_only_what_opens_the_cluster_or_tells_its_state_needs_no_token(rpc: Rpc) -> None:
    assert rpc.rule.token_required == (rpc.name not in WITHOUT_TOKEN)


@pytest.mark.parametrize("rpc", [rpc for rpc in public_rpcs() if rpc.rule.token_required], ids=names)
def test_what_needs_a_token_says_which_capability_on_which_path(rpc: Rpc) -> None:
    assert rpc.rule.policy_path
    assert rpc.rule.capabilities
    assert set(rpc.rule.capabilities) <= CAPABILITIES


@pytest.mark.parametrize("rpc", [rpc for rpc in public_rpcs() if rpc.name in NEVER_RETRIED], ids=names)
def test_what_must_not_happen_twice_is_not_retried(rpc: Rpc) -> None:
    assert not rpc.rule.retryable


@pytest.mark.parametrize("rpc", public_rpcs(), ids=names)
def test_what_the_path_names_the_request_has(rpc: Rpc) -> None:
    for _, template in rpc.bindings:
        for field in re.findall(r"\{(\w+)", template):
            assert field in rpc.request.DESCRIPTOR.fields_by_name


@pytest.mark.parametrize("rpc", public_rpcs(), ids=names)
def test_only_what_changes_something_takes_a_body(rpc: Rpc) -> None:
    for verb, _ in rpc.bindings:
        assert verb in {"GET", "PUT", "POST", "PATCH", "DELETE"}
    has_body = bool(_body_of(rpc))
    assert has_body == any(verb in {"PUT", "POST", "PATCH"} for verb, _ in rpc.bindings)


def test_no_two_rpcs_share_a_rest_path() -> None:
    # Names of the parts do not matter to a router.
    bindings = [(verb, re.sub(r"\{\w+", "{", path)) for rpc in public_rpcs() for verb, path in rpc.bindings]
    assert len(bindings) == len(set(bindings))


def _body_of(rpc: Rpc) -> str:
    service = rpc.request.DESCRIPTOR.file.services_by_name[rpc.service.rpartition(".")[2]]
    http = service.methods_by_name[rpc.name].GetOptions().Extensions[annotations_pb2.http]
    return str(http.body)
