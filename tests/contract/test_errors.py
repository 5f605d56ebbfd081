"""The shape of errors, the services' and the gateway's own: one form, and no word of what was sent."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.clients import GrpcClient, RestClient, refusal_of
from tests.support.cluster import Cluster
from tests.support.expect import outcome
from tests.support.samples import FIELDS, message_of, rest_call
from tests.support.surface import Rpc, all_rpcs, public_rpcs

pytestmark = pytest.mark.cluster
CANARY = "hunter2-my-secret"
_GUARDED = [rpc for rpc in public_rpcs() if rpc.rule.token_required]
# A batch tells the refusal of each secret in its place.
_OWN_OR_EACH = ("LookupSelf", "RenewSelf", "RevokeSelf", "BatchReadSecrets")
_RESTRICTED = [rpc for rpc in _GUARDED if rpc.name not in _OWN_OR_EACH]


def require_shape(answer: httpx.Response, status: int, code: str, reason: str) -> dict[str, Any]:
    """The answer's JSON, which must be a google.rpc.Status with both details."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    body: dict[str, Any] = answer.json()
    assert set(body) == {"code", "message", "details"}
    refusal = refusal_of(answer)
    assert (refusal.code, refusal.reason, refusal.domain) == (code, reason, "strongbox")
    assert refusal.message
    assert len(refusal.request_id) == 36
    assert refusal.request_id == answer.headers.get("x-request-id", refusal.request_id)
    kinds = [detail["@type"].rpartition(".")[2] for detail in body["details"]]
    assert kinds == ["ErrorInfo", "RequestInfo"]
    return body


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code", "reason"),
    [
        ("GET", "/v1/secrets/none/such", None, 404, "NOT_FOUND", "NOT_FOUND"),
        ("PUT", "/v1/secrets/errors/none", b"{}", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("GET", "/v1/secrets", None, 400, "INVALID_ARGUMENT", "INVALID_PATH"),
        ("GET", "/v1/secrets/a//b", None, 400, "INVALID_ARGUMENT", "INVALID_PATH"),
        ("PUT", "/v1/secrets/errors/cas", b'{"value":"x","cas":7}', 409, "ABORTED", "VERSION_MISMATCH"),
        ("POST", "/v1/sys/init", b"{}", 400, "INVALID_ARGUMENT", "ALREADY_INITIALIZED"),
    ],
)
def test_errors_of_services_have_the_documented_shape(
    root: RestClient, method: str, path: str, content: bytes | None, status: int, code: str, reason: str
) -> None:
    require_shape(root.raw(method, path, content), status, code, reason)


@pytest.mark.parametrize("rpc", _GUARDED, ids=repr)
def test_every_guarded_rpc_refuses_a_missing_and_an_unknown_token(cluster: Cluster, rpc: Rpc) -> None:
    call = rest_call(rpc, FIELDS[rpc.name])
    for token in ("", "sb.unknown", "x" * 5000):
        with cluster.rest(token) as rest, cluster.grpc(token) as native:
            answer = rest.raw(call.method, call.target, call.body)
            require_shape(answer, 401, "UNAUTHENTICATED", "UNAUTHENTICATED")
            refusal = outcome(native.send, rpc, message_of(rpc, FIELDS[rpc.name]))
            assert refusal is not None
            assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            assert refusal.domain == "strongbox"
            assert len(refusal.request_id) == 36


@pytest.mark.parametrize("rpc", _RESTRICTED, ids=repr)
def test_every_guarded_rpc_refuses_a_token_without_the_capability(
    cluster: Cluster, native: GrpcClient, rpc: Rpc
) -> None:
    token = native.call("CreateToken", policies=["default"]).token
    call = rest_call(rpc, FIELDS[rpc.name])
    with cluster.rest(token) as rest, cluster.grpc(token) as own:
        # 403 is decided before existence; a lease's path is found by the lease, so an unknown one is 404.
        wanted = {"NOT_FOUND", "PERMISSION_DENIED"} if rpc.name.endswith("Lease") else {"PERMISSION_DENIED"}
        assert refusal_of(rest.raw(call.method, call.target, call.body)).code in wanted
        refusal = outcome(own.send, rpc, message_of(rpc, FIELDS[rpc.name]))
        assert refusal is not None
        assert refusal.code in wanted


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code", "reason"),
    [
        ("GET", "/v1/nothing", None, 404, "NOT_FOUND", "NOT_FOUND"),
        ("GET", "/", None, 404, "NOT_FOUND", "NOT_FOUND"),
        ("PATCH", "/v1/secrets/a", b"{}", 404, "NOT_FOUND", "NOT_FOUND"),
        (
            "PUT", "/v1/secrets/a", f'{{"value": "{CANARY}" oops}}'.encode(),
            400, "INVALID_ARGUMENT", "INVALID_ARGUMENT",
        ),
        (
            "PUT", "/v1/secrets/a", f'{{"value": "x", "cas": "{CANARY}"}}'.encode(),
            400, "INVALID_ARGUMENT", "INVALID_ARGUMENT",
        ),
        ("PUT", "/v1/secrets/a", f'["{CANARY}"]'.encode(), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (
            "GET", f"/v1/secrets/a?version={CANARY}", None,
            400, "INVALID_ARGUMENT", "INVALID_ARGUMENT",
        ),
        ("GET", f"/v1/secrets/a?{CANARY}=1", None, 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (
            "PUT", "/v1/secrets/a", b'{"value": "' + CANARY.encode() * 70000 + b'"}',
            413, "INVALID_ARGUMENT", "TOO_LARGE",
        ),
    ],
)  # fmt: skip
def test_the_gateways_own_replies_have_it_too_and_quote_nothing(
    root: RestClient, method: str, path: str, content: bytes | None, status: int, code: str, reason: str
) -> None:
    answer = root.raw(method, path, content)
    require_shape(answer, status, code, reason)
    assert CANARY not in answer.text
    assert "hunter" not in str(answer.headers)


def test_what_the_gateway_refuses_before_it_has_a_request_id_looks_the_same_but_for_that(
    root: RestClient,
) -> None:
    """An escaped slash is refused while the request's head is read."""
    answer = root.raw("GET", "/v1/secrets/a%2fb")
    refusal = refusal_of(answer)
    assert (answer.status_code, refusal.code, refusal.reason) == (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert (refusal.domain, refusal.message) == ("strongbox", "the request is not valid")


def test_rpcs_for_peers_are_nobodys_business(native: GrpcClient) -> None:
    for rpc in all_rpcs():
        if rpc.rule.peers and not rpc.is_streaming:
            refusal = outcome(native.send, rpc, b"")
            assert refusal is not None
            assert refusal.code == "UNIMPLEMENTED", f"{rpc}: {refusal}"


def test_a_body_field_never_overrides_the_path(root: RestClient, native: GrpcClient) -> None:
    answer = root.raw("PUT", "/v1/secrets/override/one", b'{"path": "override/two", "value": "x"}')
    assert answer.status_code in (200, 400)
    refusal = outcome(native.call, "ReadSecret", path="override/two")
    assert refusal is not None
    assert refusal.code == "NOT_FOUND"
