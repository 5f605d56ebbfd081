"""Every RPC × every kind of caller: exactly the allowed cells pass. Made from the rules in the protos.

    token        none · garbage · expired · revoked · with the wrong policy · with the right policy
    certificate  another service's · none · a listed one (straight at the service, past the gateway)

An RPC that is added is in the matrix by itself; its right policy is what its rule says: the capabilities on
its policy path, up to the first part that a request names.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from strongbox.config import SERVICES
from tests.support.clients import GrpcClient, Patience, Refused, RestClient, refusal_of
from tests.support.cluster import Cluster
from tests.support.expect import eventually, outcome
from tests.support.samples import FIELDS, message_of, rest_call
from tests.support.surface import Rpc, all_rpcs, public_rpcs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
PUBLIC = [rpc for rpc in public_rpcs() if rpc.rule.token_required]
OPEN = [rpc for rpc in public_rpcs() if not rpc.rule.token_required]
DEAD = ("none", "garbage", "expired", "revoked")
# Their handlers refuse with 401 themselves: who came as far was let in by everything before.
LOGIN = "the login was refused"
# Whoever may call it seals the cluster: its right cell is last.
LAST = "Seal"
# Authorized item by item: the call succeeds, and each item says why it is refused.
PER_ITEM = {"BatchReadSecrets"}
_LEASES = "/v1/leases?path=secret/none"
Tokens = dict[str, str]


@pytest.fixture(scope="module")
def tokens(cluster: Cluster) -> Tokens:
    """A token of each wrong kind."""
    with cluster.grpc(cluster.root_token, 0, Patience()) as root:
        root.call("WritePolicy", name="matrix-wrong", rules=[_rule("secret/nothing/of/this", ["read"])])
        made = {
            kind: root.call(
                "CreateToken", policies=["matrix-wrong"], no_default=True, ttl={"number_value": ttl}
            )
            for kind, ttl in (("wrong", 3600), ("expired", 1), ("revoked", 3600))
        }
        root.call("RevokeToken", accessor=made["revoked"].accessor)
    time.sleep(1.5)
    found = {kind: str(answer.token) for kind, answer in made.items()}
    return {**found, "none": "", "garbage": "sb." + "A" * 43}


def _rule(path: str, capabilities: list[str]) -> dict[str, Any]:
    return {"path": path, "capabilities": capabilities}


def _right_token(root: GrpcClient, rpc: Rpc) -> str:
    """A token whose only policy is what the RPC's rule asks for."""
    path, placeholder, _ = str(rpc.rule.policy_path).partition("{")
    rules = [_rule(f"{path}*" if placeholder else path, sorted(rpc.rule.capabilities))]
    root.call("WritePolicy", name="matrix-right", rules=rules)
    return str(root.call("CreateToken", policies=["matrix-right"], no_default=True).token)


def _send(client: GrpcClient, rpc: Rpc, seconds: float = 8.0) -> Refused | None:
    return outcome(client.send, rpc, message_of(rpc, FIELDS[rpc.name]), seconds)


def _is_let_in(refusal: Refused | None) -> bool:
    if refusal is None or refusal.message == LOGIN:
        return True
    return refusal.code not in ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")


@pytest.mark.parametrize("kind", [*DEAD, "wrong"])
def test_no_rpc_lets_a_wrong_token_in(cluster: Cluster, tokens: Tokens, kind: str) -> None:
    wanted = "PERMISSION_DENIED" if kind == "wrong" else "UNAUTHENTICATED"
    wrong: list[str] = []
    with (
        cluster.grpc(tokens[kind], 1, Patience()) as native,
        cluster.rest(tokens[kind], 2, Patience()) as rest,
    ):
        for rpc in PUBLIC:
            if kind == "wrong" and rpc.name in PER_ITEM:
                wrong += _wrong_items(native, rest, rpc)
                continue
            told = _send(native, rpc)
            if told is None or (told.code, told.reason) != (wanted, wanted):
                wrong.append(f"{rpc} over gRPC: {told}")
            answer = _send_rest(rest, rpc)
            if (answer.http, answer.reason) != (403 if kind == "wrong" else 401, wanted):
                wrong.append(f"{rpc} over REST: {answer}")
    assert wrong == []


def _wrong_items(native: GrpcClient, rest: RestClient, rpc: Rpc) -> list[str]:
    results = native.send(rpc, message_of(rpc, FIELDS[rpc.name])).results
    call = rest_call(rpc, FIELDS[rpc.name])
    told = rest.raw(call.method, call.target, call.body).json()["results"]
    codes = [*(one.error.code for one in results), *(one["error"]["code"] for one in told)]
    denied = int(grpc.StatusCode.PERMISSION_DENIED.value[0])
    return [] if codes and set(codes) == {denied} else [f"{rpc}: items with the codes {codes}"]


def _send_rest(rest: RestClient, rpc: Rpc) -> Refused:
    call = rest_call(rpc, FIELDS[rpc.name])

    def answered() -> Refused:
        told = refusal_of(rest.raw(call.method, call.target, call.body))
        assert told.http != 503, str(told)
        return told

    return eventually(20, answered)  # type: ignore[no-any-return]


def test_every_rpc_lets_the_right_policy_in(cluster: Cluster) -> None:
    wrong: list[str] = []
    with cluster.grpc(cluster.root_token, 0, Patience()) as root:
        for rpc in PUBLIC:
            if rpc.name == LAST:
                continue
            # Not long: some are told 503 by rights, such as of a PostgreSQL that is not there.
            with cluster.grpc(_right_token(root, rpc), 1, Patience(1.0)) as native:
                told = _send(native, rpc, 2.5 if rpc.is_streaming else 8.0)
                if not _is_let_in(told):
                    wrong.append(f"{rpc}: {told}")
    assert wrong == []


def test_what_needs_no_token_ignores_any(cluster: Cluster, tokens: Tokens) -> None:
    wrong: list[str] = []
    for kind, token in tokens.items():
        # Not long: the API server that reviews Kubernetes logins is down, and that is told with 503.
        with cluster.grpc(token, 2, Patience(1.0)) as native:
            found = [(rpc, _send(native, rpc)) for rpc in OPEN]
            wrong += [f"{rpc} with {kind}: {told}" for rpc, told in found if not _is_let_in(told)]
    assert wrong == []


def test_the_gateway_knows_no_rpc_for_peers(cluster: Cluster) -> None:
    with cluster.grpc(cluster.root_token) as native:
        for rpc in all_rpcs():
            if rpc.rule.peers:
                told = outcome(native.send, rpc, b"")
                assert told is not None
                assert told.code == "UNIMPLEMENTED", f"{rpc}: {told}"


# straight at the services, past the gateway -------------------------------------------------------------


class Straight:
    """Channels to one node's services under any certificate."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._node = cluster, cluster.node_ids[0]
        self._certs = Path(cluster.description["certs"])
        self._channels: dict[tuple[str, str], grpc.Channel] = {}

    def call(self, rpc: Rpc, identity: str) -> str:
        """The code of one call with an empty message; `identity` empty: no certificate."""
        service = rpc.service.split(".")[1]
        call = self._channel(service, identity).stream_stream(rpc.full_name)
        try:
            next(iter(call(iter([b""]), timeout=3)), None)
        except grpc.RpcError as error:
            # The service's own 503 (a machine too busy for etcd) is an answer to somebody who was let in.
            answered = any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
            code = str(error.code().name)
            return f"{code} (its own)" if answered and code == "UNAVAILABLE" else code
        return "OK"

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def _channel(self, service: str, identity: str) -> grpc.Channel:
        known = self._channels.get((service, identity))
        if known is None:
            address = self._cluster.process(self._node, service).address
            name = f"{service}.strongbox.internal"
            options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
            known = grpc.secure_channel(address, self._credentials(identity), options)
            self._channels[service, identity] = known
        return known

    def _credentials(self, identity: str) -> grpc.ChannelCredentials:
        authority = (self._certs / "ca.pem").read_bytes()
        if not identity:
            return grpc.ssl_channel_credentials(authority)
        stem = self._certs / ("operator" if identity == "operator" else f"{self._node}/{identity}")
        key, certificate = (stem.with_suffix(end).read_bytes() for end in (".key", ".pem"))
        return grpc.ssl_channel_credentials(authority, key, certificate)


@pytest.fixture(scope="module")
def straight(cluster: Cluster) -> Iterator[Straight]:
    found = Straight(cluster)
    yield found
    found.close()


def _listed(rpc: Rpc) -> set[str]:
    """Who may call, by certificate."""
    return set(rpc.rule.peers) or {"gateway", "operator"}


@pytest.mark.parametrize("identity", [*SERVICES, "gateway", "operator", ""])
def test_exactly_the_listed_certificates_are_let_in(straight: Straight, identity: str) -> None:
    wrong: list[str] = []
    for rpc in all_rpcs():
        if rpc.name == LAST and identity in _listed(rpc):
            continue
        code = straight.call(rpc, identity)
        if not identity:
            right = code == "UNAVAILABLE"  # the handshake fails
        elif identity in _listed(rpc):
            right = code not in ("PERMISSION_DENIED", "UNAVAILABLE", "UNIMPLEMENTED")
        else:
            right = code == "PERMISSION_DENIED"
        if not right:
            wrong.append(f"{rpc} by {identity or 'nobody'}: {code}")
    assert wrong == []


def test_the_right_policy_seals(cluster: Cluster) -> None:
    """Last of the matrix; the cluster is unsealed again for whoever comes after."""
    (rpc,) = (rpc for rpc in PUBLIC if rpc.name == LAST)
    with cluster.grpc(cluster.root_token, 0, Patience()) as root:
        token = _right_token(root, rpc)
    try:
        with cluster.grpc(token, 0, Patience()) as native:
            assert _send(native, rpc) is None
    finally:
        _unseal(cluster)


def _unseal(cluster: Cluster) -> None:
    with cluster.rest("", 0, Patience()) as anybody:
        for share in cluster.shares[:2]:
            told = outcome(anybody.call, "POST", "/v1/sys/unseal", {"share": share})
            # An answer that was lost: the share was taken all the same.
            assert told is None or told.reason == "REPEATED_SHARE", str(told)
    for node in range(len(cluster.node_ids)):
        with cluster.rest(cluster.root_token, node) as root:
            for path in (
                "/v1/sys/ready",
                "/v1/secrets-list",
                "/v1/tokens/self",
                "/v1/audit?limit=1",
                _LEASES,
            ):
                eventually(30, root.call, "GET", path)
