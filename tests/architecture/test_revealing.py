"""Every answer that holds a secret passes the one check before it leaves (docs/adr/0032).

A field that holds a secret is marked `debug_redact` in the protos; the RPC that answers with it `reveals`.
Here the names of all fields of all answers are looked at, so that a new one is decided about.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tests.support.surface import Rpc, all_rpcs

# Made before anybody can unseal the cluster, and so before anybody can seal it.
BEFORE_ANY_SEAL = {"Initialize"}
# The last word of the name of a field that holds a secret …
SECRET = {
    "token", "tokens", "password", "secret", "share", "shares", "key", "keys", "value", "values", "data",
    "binary", "jwt", "nonce", "ciphertext", "unwrapped", "credential", "private",
}  # fmt: skip
# … and the fields that have such a name and hold none.
PUBLIC = {
    "next_page_token",
    "public_key", "verifier_key",
    "GetSealStatusResponse.shares", "GetSealStatusResponse.nonce",
    "UnsealResponse.nonce",  # names the attempt
    "VerifyRekeyResponse.nonce",  # what the caller sent
    "has_token_reviewer_jwt",  # whether there is one
    "CustomEntry.key", "CustomEntry.value",  # a secret's metadata, which is told to who may not read it
    "LeadersEntry.key", "LeadersEntry.value", "DutiesEntry.key", "DutiesEntry.value",
    "BatchedSecret.secret",  # a message: its own fields are looked at
    "WrappedDataKey.nonce", "WrappedDataKey.ciphertext",
    "StreamKeysResponse.unwrapped", "StreamKeysResponse.record_keys",  # messages
    "RequestRootKeyResponse.public_key", "RequestRootKeyResponse.nonce",
    "RequestRootKeyResponse.ciphertext",  # encrypted to the replica that asks
}  # fmt: skip


def fields_of(message: Descriptor, seen: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    """Every field of a message of ours, at any depth."""
    if message.full_name in seen or not message.full_name.startswith("strongbox."):
        return
    for field in message.fields:
        yield field
        if field.message_type is not None:
            yield from fields_of(field.message_type, seen | {message.full_name})


def secrets_of(rpc: Rpc) -> list[str]:
    """The fields of its answer that are marked."""
    found = fields_of(rpc.response.DESCRIPTOR)
    return [field.full_name for field in found if field.GetOptions().debug_redact]


def test_whatever_answers_with_a_secret_is_guarded_and_nothing_else() -> None:
    told = {rpc.name for rpc in all_rpcs() if not rpc.rule.peers and secrets_of(rpc)}
    assert {rpc.name for rpc in all_rpcs() if rpc.rule.reveals} == told - BEFORE_ANY_SEAL
    assert {
        "ReadSecret", "BatchReadSecrets", "IssueCredential", "CreateToken", "LoginUser", "LoginAppRole",
        "LoginKubernetes", "CreateSecretId", "ExportKey", "UpdateRekey", "UpdateGenerateRoot",
    } <= told  # fmt: skip


def test_what_peers_tell_each_other_is_guarded_where_it_leaves_the_cluster() -> None:
    """Whoever is told a key tells a secret by it in an answer of his own, which is checked."""
    told = {rpc.name for rpc in all_rpcs() if rpc.rule.peers and secrets_of(rpc)}
    assert told == {"StreamKeys", "RelayShares", "ExchangeShares"}
    assert not any(rpc.rule.reveals for rpc in all_rpcs() if rpc.rule.peers)


@pytest.mark.parametrize("rpc", all_rpcs(), ids=lambda rpc: rpc.full_name)
def test_a_field_that_sounds_like_a_secret_is_marked_or_known_to_be_none(rpc: Rpc) -> None:
    for field in fields_of(rpc.response.DESCRIPTOR):
        if field.name.rsplit("_", 1)[-1] not in SECRET or field.GetOptions().debug_redact:
            continue
        names = {field.name, f"{field.containing_type.name}.{field.name}"}
        assert names & PUBLIC, f"{field.full_name}: mark it debug_redact, or say here why it is no secret"


def test_no_stream_reveals() -> None:
    """Each of its answers would have to be checked; `rules` refuses one at the start."""
    assert not [rpc.name for rpc in all_rpcs() if rpc.rule.reveals and rpc.is_streaming]
