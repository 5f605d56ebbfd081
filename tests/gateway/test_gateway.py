"""The gateway alone: what a caller may send, what a service gets, what comes back when something is wrong."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
import uuid
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from strongbox.auth.v1 import auth_service_pb2 as auth_pb
from strongbox.auth.v1 import auth_service_pb2_grpc as auth_grpc
from strongbox.kv.v1 import kv_service_pb2 as kv_pb
from strongbox.kv.v1 import kv_service_pb2_grpc as kv_grpc
from strongbox.seal.v1 import seal_peer_service_pb2 as peer_pb
from strongbox.seal.v1 import seal_peer_service_pb2_grpc as peer_grpc
from tests.support.gateway import Gateway, running_gateway


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.world.calls.clear()
    shared.world.failures.clear()
    return shared


def test_rest_and_grpc_share_a_port_and_the_own_nodes_replica_answers(gateway: Gateway) -> None:
    for _ in range(5):
        answer = gateway.rest("GET", "/v1/secrets/app/db")
        assert (answer.status, answer.json["value"]) == (200, "node-1")
    with gateway.channel() as channel:
        read = kv_grpc.KVServiceStub(channel).ReadSecret(kv_pb.ReadSecretRequest(path="app/db"))
    assert read.value == "node-1"


def test_json_is_snake_case_with_zero_values_and_64_bits_as_text(gateway: Gateway) -> None:
    answer = gateway.rest("GET", "/v1/secrets/a").json
    assert (answer["version"], answer["revision"]) == (0, "9007199254740993")
    assert "data" not in answer
    assert gateway.rest("PUT", "/v1/secrets/a", b'{"value": ""}').json["revision"] == ""
    assert gateway.rest("GET", "/v1/secrets-list").json == {"names": [], "next_page_token": ""}


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ("a/b", "a/b"),
        ("a/b/", "a/b"),
        ("/a", "/a"),
        ("a//b", "a//b"),
        ("a/../b", "a/../b"),
        ("a/./b", "a/./b"),
        ("a/%2e%2e/b", "a/../b"),
        ("a%40b", "a@b"),
        ("a%20b", "a b"),
        ("a%25b", "a%b"),
        ("a%252fb", "a%2fb"),
        ("a%0ab", "a\nb"),
        ("a:b", "a:b"),
        ("a+b", "a+b"),
        ("caf%C3%A9", "café"),
        ("a/?version=2", "a"),
    ],
)
def test_a_path_reaches_the_service_as_it_was_sent(gateway: Gateway, sent: str, got: str) -> None:
    assert gateway.rest("GET", f"/v1/secrets/{sent}").status == 200
    assert gateway.world.calls[-1].request.path == got


@pytest.mark.parametrize("path", ["a%2fb", "a%2Fb", "a%5cb", "a//", "a/b///", "//", "/"])
def test_an_escaped_slash_and_more_than_one_at_the_end_are_refused(gateway: Gateway, path: str) -> None:
    assert gateway.rest("GET", f"/v1/secrets/{path}").status == 400
    assert not gateway.world.calls


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/v1/secrets/a?path=b"),
        ("GET", "/v1/secrets/a?path"),
        ("GET", "/v1/secrets/a?version=1&path=b"),
        ("GET", "/v1/secrets/a?p%61th=b"),
        ("GET", "/v1/secrets/a?version=1&%70ath=b"),
        ("PUT", "/v1/secrets/a?path=b"),
        ("DELETE", "/v1/secrets/a?path=b"),
        ("GET", "/v1/secrets-list/a?prefix=b"),
        ("GET", "/v1/secrets-metadata/a?path=b"),
        ("DELETE", "/v1/policies/a?name=b"),
        ("DELETE", "/v1/tokens/a?accessor=b"),
        ("POST", "/v1/tokens/a/renew?accessor=b"),
        ("GET", "/v1/leases/a?id=b"),
    ],
)
def test_a_query_never_says_otherwise_what_the_path_says(gateway: Gateway, method: str, url: str) -> None:
    answer = gateway.rest(method, url, b'{"value": "v"}' if method in ("PUT", "POST") else None)
    assert (answer.status, answer.json["details"][0]["reason"]) == (400, "INVALID_ARGUMENT")
    assert not gateway.world.calls


@pytest.mark.parametrize("query", ["version=2", "version=%32", ""])
def test_a_query_says_what_the_path_does_not(gateway: Gateway, query: str) -> None:
    assert gateway.rest("GET", f"/v1/secrets/path/name?{query}").status == 200
    assert gateway.world.calls[-1].request.path == "path/name"


@pytest.mark.parametrize("timeout", ["junk", "1", "S", "123456789S", "-1S", ""])
def test_a_deadline_that_is_none_is_refused_in_our_words(gateway: Gateway, timeout: str) -> None:
    answer = gateway.rest("GET", "/v1/secrets/a", grpc_timeout=timeout)
    assert (answer.status, answer.json["message"]) == (400, "the request is not valid")
    assert gateway.rest("GET", "/v1/secrets/a", grpc_timeout="900m").status == 200


def test_only_rest_loses_a_trailing_slash(gateway: Gateway) -> None:
    with gateway.channel() as channel:
        kv_grpc.KVServiceStub(channel).ReadSecret(kv_pb.ReadSecretRequest(path="a/b/"))
    assert gateway.world.calls[-1].request.path == "a/b/"
    gateway.rest("GET", "/v1/secrets-list/a/b/?recursive=true")
    assert gateway.world.calls[-1].request == kv_pb.ListSecretsRequest(prefix="a/b", recursive=True)


def test_an_error_of_a_service_keeps_its_reason_and_details(gateway: Gateway) -> None:
    answer = gateway.rest("GET", "/v1/secrets/fail/sealed")
    assert answer.status == 503
    assert answer.json == {
        "code": 14,
        "message": "the cluster is sealed",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "SEALED",
                "domain": "strongbox",
                "metadata": {"k": "v"},
            },
            {
                "@type": "type.googleapis.com/google.rpc.RequestInfo",
                "request_id": "r",
                "serving_data": "",
            },
        ],
    }
    assert len(gateway.world.calls) == 1, "an answer is not a reason to try again"


@pytest.mark.parametrize(
    "body",
    [
        b'{"value": "hunter2" "hunter3"}',
        b'{"cas": "hunter2"}',
        b'{"binary": "hunter2!"}',
        b'{"path": "hunter2", "value": "x"}',
        b"hunter2",
    ],
)
def test_no_reply_of_the_gateway_quotes_the_body(gateway: Gateway, body: bytes) -> None:
    answer = gateway.rest("PUT", "/v1/secrets/a", body)
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert answer.json["message"] == "the request is not valid"
    assert b"hunter" not in answer.body
    assert not any("hunter" in value for value in answer.headers.values())
    assert not gateway.world.calls


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v1/secrets/a?versoin=1", 400, "INVALID_ARGUMENT"),
        ("GET", "/v1/secrets/a?version=x", 400, "INVALID_ARGUMENT"),
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("POST", "/v1/secrets/a", 404, "NOT_FOUND"),
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/healthz/", 404, "NOT_FOUND"),
        ("GET", "/v1/audit", 503, "UNAVAILABLE"),
    ],
)
def test_the_gateways_own_replies_have_the_shape_of_errors(
    gateway: Gateway, method: str, path: str, status: int, reason: str
) -> None:
    answer = gateway.rest(method, path)
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.headers["content-type"] == "application/json"
    request_info = answer.json["details"][1]
    assert request_info["@type"] == "type.googleapis.com/google.rpc.RequestInfo"
    assert uuid.UUID(request_info["request_id"]) == uuid.UUID(answer.headers["x-request-id"])


@pytest.mark.parametrize(
    "request_", [b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/9\r\n\r\n"]
)
def test_an_error_of_http_itself_has_the_shape_of_errors_and_no_request_id(
    gateway: Gateway, request_: bytes
) -> None:
    headers, body = gateway.raw(request_).split(b"\r\n\r\n", 1)
    assert headers.startswith(b"HTTP/1.1 400 ")
    told = json.loads(body)
    assert told["details"][0]["reason"] == "INVALID_ARGUMENT"
    assert told["details"][1]["request_id"] is None


def test_a_body_over_a_mebibyte_is_refused(gateway: Gateway) -> None:
    value = "x" * (1 << 20)
    answer = gateway.rest("PUT", "/v1/secrets/a", json.dumps({"value": value}).encode())
    assert (answer.status, answer.reason) == (413, "TOO_LARGE")
    with gateway.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        kv_grpc.KVServiceStub(channel).WriteSecret(kv_pb.WriteSecretRequest(path="a", value=value))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not gateway.world.calls
    fits = json.dumps({"value": "x" * 1_000_000}).encode()
    assert gateway.rest("PUT", "/v1/secrets/a", fits).status == 200


def test_nobody_outside_chooses_a_request_id_or_says_where_he_comes_from(gateway: Gateway) -> None:
    answer = gateway.rest(
        "GET",
        "/v1/secrets/a",
        x_request_id="chosen",
        x_forwarded_for="6.6.6.6",
        x_strongbox_retry="1",
        X_Strongbox_Identity="root",
        x_envoy_external_address="6.6.6.6",
        x_envoy_max_retries="9",
        x_envoy_original_path="/v1/other",
        authorization="Bearer token",
        idempotency_key="mine",
    )
    got = gateway.world.calls[-1].metadata
    assert answer.status == 200
    assert uuid.UUID(got["x-request-id"]) == uuid.UUID(answer.headers["x-request-id"])
    assert got["x-forwarded-for"]
    assert "6.6.6.6" not in str(got)
    assert not [name for name in got if name.startswith("x-strongbox") or name == "x-envoy-max-retries"]
    assert got["x-envoy-original-path"] == "/v1/secrets/a"
    assert (got["authorization"], got["idempotency-key"]) == ("Bearer token", "mine")


def test_a_native_client_gets_an_id_of_its_own_too(gateway: Gateway) -> None:
    with gateway.channel() as channel:
        kv_grpc.KVServiceStub(channel).ReadSecret(
            kv_pb.ReadSecretRequest(path="a"),
            metadata=(("x-request-id", "chosen"), ("x-forwarded-for", "6.6.6.6")),
        )
    got = gateway.world.calls[-1].metadata
    uuid.UUID(got["x-request-id"])
    assert "6.6.6.6" not in str(got)


def test_what_a_service_calls_safe_is_tried_on_another_node(gateway: Gateway) -> None:
    answer = gateway.rest("GET", "/v1/secrets/fail/retry")
    assert answer.status == 200
    assert answer.json["value"] != "node-1"
    first, second = gateway.world.calls
    assert first.node == "node-1"
    assert first.metadata["x-request-id"] == second.metadata["x-request-id"]


def test_creating_a_token_is_never_sent_twice(gateway: Gateway) -> None:
    with gateway.channel() as channel, pytest.raises(grpc.RpcError):
        auth_grpc.AuthServiceStub(channel).CreateToken(auth_pb.CreateTokenRequest(display_name="fail/retry"))
    assert len(gateway.world.calls) == 1


def test_a_slow_replica_ends_in_504_after_two_seconds(gateway: Gateway) -> None:
    began = time.monotonic()
    answer = gateway.rest("GET", "/v1/secrets/fail/slow")
    assert 1.8 < time.monotonic() - began < 2.8
    assert (answer.status, answer.json["code"], answer.reason) == (504, 4, "DEADLINE_EXCEEDED")
    with gateway.channel() as channel, pytest.raises(grpc.RpcError) as late:
        kv_grpc.KVServiceStub(channel).ReadSecret(kv_pb.ReadSecretRequest(path="fail/slow"))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_what_is_for_peers_health_and_reflection_are_nobodys_business(gateway: Gateway) -> None:
    with gateway.channel() as channel:
        for call in (
            lambda: peer_grpc.SealPeerServiceStub(channel).RelayShares(peer_pb.RelaySharesRequest()),
            lambda: health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()),
            lambda: channel.unary_unary("/v1/secrets/a", bytes, bytes)(b""),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    for path in ("strongbox.seal.v1.SealPeerService/RelayShares", "grpc.health.v1.Health/Check"):
        assert gateway.rest("POST", f"/{path}", b"{}").status == 404
    assert gateway.rest("POST", "/strongbox.kv.v1.KVService/ReadSecret", b'{"path": "a"}').status == 404


def test_calls_that_anybody_may_make_are_limited_and_others_are_not(gateway: Gateway) -> None:
    answers = [gateway.rest("POST", "/v1/sys/unseal", b'{"share": ""}') for _ in range(300)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert refused[0].reason == "RATE_LIMITED"
    assert refused[0].headers["retry-after"] == "1"
    assert gateway.rest("GET", "/v1/secrets/a").status == 200
    assert gateway.rest("GET", "/v1/sys/health").status == 200


def test_the_tls_listener_serves_the_same(gateway: Gateway) -> None:
    trust = ssl.create_default_context(cafile=str(gateway.certificates.authority))
    with urllib.request.urlopen(
        f"https://localhost:{gateway.tls_port}/v1/secrets/a", context=trust, timeout=5
    ) as response:
        assert json.load(response)["value"] == "node-1"


@pytest.mark.parametrize("path", ["/v1/sys/health", "/v1/sys/health?"])
def test_monitors_may_ask_for_health_by_head_and_by_http_1_0(gateway: Gateway, path: str) -> None:
    with_get, with_head = gateway.rest("GET", path), gateway.rest("HEAD", path)
    assert (with_get.status, with_head.status, with_head.body) == (200, 200, b"")
    assert with_head.headers["content-type"] == "application/json"
    assert gateway.rest("HEAD", "/v1/secrets/a").status == 404
    said = gateway.raw(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert said.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
    assert b'"node_id":"node-1"' in said
    # No body follows HEAD: the next answer on the connection begins right after its headers.
    first = f"HEAD {path} HTTP/1.1\r\nhost: a\r\n\r\n"
    twice = f"{first}GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    headers, second, _ = gateway.raw(twice.encode()).split(b"\r\n\r\n", 2)
    assert headers.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 200")


def test_every_answer_forbids_caching(gateway: Gateway) -> None:
    for path in ("/v1/secrets/a", "/v1/secrets/fail/sealed"):
        assert gateway.rest("GET", path).headers["cache-control"] == "no-store"
