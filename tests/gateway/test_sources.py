"""A flood from one address keeps nobody else out; whom a proxy speaks for only a trusted one says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from strongbox.gateway.source_limits import Limits
from strongbox.kv.v1 import kv_service_pb2 as kv_pb
from strongbox.kv.v1 import kv_service_pb2_grpc as kv_grpc
from tests.support.gateway import Answer, Gateway, running_gateway

FLOODER, HONEST = "127.0.0.2", "127.0.0.3"
# Small, so that few requests make a flood; a bucket holds twice as many, and 401s count over ten seconds.
LIMITS = Limits(gateway_open_rate=10, gateway_status_rate=10, gateway_refused_rate=4)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), LIMITS) as running:
        yield running


Ask = Callable[[Gateway, str], Answer]


def login(gateway: Gateway, source: str) -> Answer:
    return gateway.rest("POST", "/v1/auth/login/alice", b'{"password": "x"}', source=source)


def unseal(gateway: Gateway, source: str) -> Answer:
    return gateway.rest("POST", "/v1/sys/unseal", b'{"share": "x"}', source=source)


def health(gateway: Gateway, source: str) -> Answer:
    return gateway.rest("GET", "/v1/sys/health", source=source)


def read_with_junk(gateway: Gateway, source: str) -> Answer:
    return gateway.rest("GET", "/v1/secrets/a", source=source, authorization="Bearer junk")


@pytest.mark.parametrize("ask", [login, unseal, health, read_with_junk])
def test_who_floods_is_refused_and_nobody_else_is(gateway: Gateway, ask: Ask) -> None:
    answers = [ask(gateway, FLOODER) for _ in range(120)]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) > 40
    assert refused[0].reason == "RATE_LIMITED"
    assert refused[0].headers["retry-after"] == "1"
    for honest in (login, unseal, health):
        assert honest(gateway, HONEST).status == 200
    assert gateway.rest("GET", "/v1/secrets/a", source=HONEST).status == 200


def test_a_native_client_with_junk_for_a_token_is_told_to_wait(gateway: Gateway) -> None:
    codes = set()
    with gateway.channel() as channel:
        for _ in range(60):
            with pytest.raises(grpc.RpcError) as refused:
                kv_grpc.KVServiceStub(channel).ReadSecret(
                    kv_pb.ReadSecretRequest(path="a"), metadata=(("authorization", "Bearer junk"),)
                )
            codes.add(refused.value.code())
    assert codes == {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_sealing_and_revoking_are_not_refused_for_junk_that_was_sent_elsewhere(gateway: Gateway) -> None:
    source = "127.0.0.6"
    statuses = [read_with_junk(gateway, source).status for _ in range(120)]
    assert statuses[-1] == 429
    assert gateway.rest("GET", "/v1/secrets/a", source=source).status == 429
    for method, path in (
        ("POST", "/v1/sys/seal"),
        ("DELETE", "/v1/tokens/self"),
        ("DELETE", "/v1/tokens/abc"),
        ("DELETE", "/v1/approles/app/secret-id/abc"),
    ):
        body = b"{}" if method == "POST" else None
        assert gateway.rest(method, path, body, source=source).status == 501, "it reached the service"


def test_junk_for_sealing_is_refused_as_well_and_nothing_else_with_it(gateway: Gateway) -> None:
    def seal(token: str) -> int:
        return gateway.rest("POST", "/v1/sys/seal", b"{}", "127.0.0.7", authorization=token).status

    assert {seal("Bearer junk") for _ in range(120)} == {401, 429}
    assert gateway.rest("GET", "/v1/secrets/a", source="127.0.0.7").status == 200


def test_many_sources_that_ask_for_health_keep_no_other_from_it(gateway: Gateway) -> None:
    crowd = {health(gateway, f"127.0.1.{number}").status for number in range(1, 250) for _ in range(2)}
    assert crowd == {200}
    assert health(gateway, "127.0.0.8").status == 200


def test_good_tokens_are_not_limited_by_number(gateway: Gateway) -> None:
    answers = [gateway.rest("GET", "/v1/secrets/a", source="127.0.0.4") for _ in range(200)]
    assert {answer.status for answer in answers} == {200}


def test_without_a_trusted_proxy_nobody_chooses_his_address(gateway: Gateway) -> None:
    def ask(number: int) -> Answer:
        told = f"198.51.100.{number}"
        return gateway.rest("GET", "/v1/sys/health", source="127.0.0.5", x_forwarded_for=told)

    assert 429 in {ask(number).status for number in range(60)}


def test_behind_a_trusted_proxy_the_client_is_who_it_saw(tmp_path: Path) -> None:
    def ask(forwarded: str) -> int:
        return gateway.rest("GET", "/v1/sys/seal-status", x_forwarded_for=forwarded).status

    limits = LIMITS.model_copy(update={"gateway_trusted_proxies": 1})
    with running_gateway(tmp_path, limits) as gateway:
        # What a client wrote itself stands before what the proxy appended.
        flood = {ask(f"203.0.113.{number}, 198.51.100.1") for number in range(60)}
        assert 429 in flood
        assert ask("198.51.100.1, 198.51.100.2") != 429
        gateway.rest("GET", "/v1/secrets/a", x_forwarded_for="203.0.113.1, 198.51.100.2")
        seen = gateway.world.calls[-1].metadata
        assert seen["x-envoy-external-address"] == "198.51.100.2"
        # A customer has a whole /64 of IPv6, so it is one source.
        flood = {ask(f"2001:db8:0:7:{number:x}::1") for number in range(60)}
        assert 429 in flood
        assert ask("2001:db8:0:8::1") != 429
        for number in range(60):
            gateway.rest(
                "GET",
                "/v1/secrets/a",
                x_forwarded_for=f"2001:db8::7:{number:x}:0:0:1",
                authorization="Bearer junk",
            )
        statuses = {
            gateway.rest("GET", "/v1/secrets/a", x_forwarded_for=told).status
            for told in ("2001:db8:0:7::9", "2001:db8::7:5:0:0:1")
        }
        assert statuses == {429}
        assert gateway.rest("GET", "/v1/secrets/a", x_forwarded_for="2001:db8:0:8::9").status == 200
