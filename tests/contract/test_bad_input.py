"""Bad input to every RPC, REST and straight gRPC: the documented refusal, and nothing is changed by it."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format

from tests.contract.bad_requests import BAD, TOO_LARGE, WITHOUT_INPUT, WRONG_TYPES
from tests.support.clients import GrpcClient, Patience, RestClient, refusal_of
from tests.support.cluster import Cluster
from tests.support.expect import outcome
from tests.support.samples import message_of, rest_call
from tests.support.surface import Rpc, public_rpcs, rpc_named

pytestmark = pytest.mark.cluster
_CASES = [rpc for rpc in public_rpcs() if rpc.name in BAD]


def test_every_rpc_has_its_bad_requests() -> None:
    assert set(BAD) | WITHOUT_INPUT == {rpc.name for rpc in public_rpcs()}
    assert not set(BAD) & WITHOUT_INPUT


@pytest.fixture(scope="module", autouse=True)
def _nothing_changes(cluster: Cluster) -> Iterator[None]:
    """What the cluster holds is the same after all of it; one secret is there to be spoiled."""
    with cluster.rest(cluster.root_token, 0, Patience()) as root:
        root.write("bad/r", "as it was")
        before, tokens = _held(root), _tokens(root)
        yield
        assert _held(root) == before
        assert _tokens(root) <= tokens, "a token was made"  # others' may have run out meanwhile


def _held(root: RestClient) -> dict[str, Any]:
    """Secrets with their metadata, a value, policies."""
    names = root.call("GET", "/v1/secrets-list", recursive="true", page_size=1000)["names"]
    secrets = {
        name: {**root.call("GET", f"/v1/secrets-metadata/{urllib.parse.quote(name)}"), "revision": ""}
        for name in names
        if name.startswith("bad/") or "/" not in name
    }
    policies = root.call("GET", "/v1/policies", page_size=1000)["names"]
    return {
        "secrets": secrets, "names": names, "value": root.read("bad/r")["value"],
        "policies": {name: root.call("GET", f"/v1/policies/{name}")["rules"] for name in policies},
    }  # fmt: skip


def _tokens(root: RestClient) -> set[str]:
    return set(root.call("GET", "/v1/tokens", page_size=1000)["accessors"])


@pytest.mark.parametrize("rpc", _CASES, ids=repr)
def test_bad_input_is_refused_over_grpc(native: GrpcClient, rpc: Rpc) -> None:
    for fields, reason in BAD[rpc.name]:
        refusal = outcome(native.send, rpc, _message(rpc, fields))
        assert refusal is not None, f"{_shown(fields)} was allowed"
        wanted = "NOT_FOUND" if reason == "NOT_FOUND" else "INVALID_ARGUMENT"
        assert refusal.code == wanted, f"{_shown(fields)}: {refusal}"
        assert reason in ("any", refusal.reason), f"{_shown(fields)}: {refusal}"
        assert refusal.domain == "strongbox"


@pytest.mark.parametrize("rpc", _CASES, ids=repr)
def test_bad_input_is_refused_over_rest(root: RestClient, rpc: Rpc) -> None:
    for fields, reason in BAD[rpc.name]:
        if _means_another_route(rpc, fields):
            continue
        call = rest_call(rpc, fields)
        answer = root.raw(call.method, call.target, call.body)
        refusal = refusal_of(answer)
        shown = f"{call.method} {call.target[:80]} {_shown(fields)}: {answer.status_code} {refusal}"
        # What a URL cannot carry, or carries to nowhere, is Envoy's 400 or 404; a large one its 431 or 413.
        assert answer.status_code in (400, 404, 413, 431), shown
        if reason == TOO_LARGE:
            assert refusal.reason == TOO_LARGE, shown
        assert refusal.domain == "strongbox", shown


def _means_another_route(rpc: Rpc, fields: dict[str, Any]) -> bool:
    """An empty or slashed variable makes another URL, which means something else or nothing."""
    variables = [fields.get(name) for name in ("path", "prefix", "name", "accessor", "id") if name in fields]
    first = next((value for value in variables if isinstance(value, str)), "x")
    in_url = any("{" in template for _, template in rpc.bindings)
    return in_url and (first == "" or first.endswith("/") or "?" in first)


@pytest.mark.parametrize(("method", "target", "body"), WRONG_TYPES)
def test_wrong_types_are_refused_over_rest(root: RestClient, method: str, target: str, body: str) -> None:
    answer = root.raw(method, target, body.encode() if body or method != "GET" else None)
    assert answer.status_code == 400, answer.text[:300]
    assert refusal_of(answer).code == "INVALID_ARGUMENT"
    assert refusal_of(answer).domain == "strongbox"


@pytest.mark.parametrize("rpc", [rpc for rpc in public_rpcs() if rpc.name != "Seal"], ids=repr)
def test_bytes_that_are_no_message_are_refused(native: GrpcClient, rpc: Rpc) -> None:
    for junk in (b"\xff\xff\xff\xff", b"\x0a\xff\x01", b"\x0b"):
        refusal = outcome(native.send, rpc, junk)
        assert refusal is not None, f"{junk!r} was taken"
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT"), str(refusal)
        assert len(refusal.request_id) == 36


def test_a_message_larger_than_the_limit_is_refused_natively(native: GrpcClient) -> None:
    rpc = rpc_named("WriteSecret")
    refusal = outcome(native.send, rpc, message_of(rpc, {"path": "bad/w", "value": "v" * (2 << 20)}))
    assert refusal is not None
    assert refusal.code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"), str(refusal)


def test_a_version_that_does_not_exist_is_not_found(native: GrpcClient) -> None:
    refusal = outcome(native.call, "ReadSecret", path="bad/r", version=2**31 - 1)
    assert refusal is not None
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "NOT_FOUND")


def test_a_directory_is_listed_with_or_without_its_slash_over_rest(root: RestClient) -> None:
    for target in ("/v1/secrets-list/bad", "/v1/secrets-list/bad/"):
        assert root.call("GET", target)["names"] == ["r"]
    assert root.call("GET", "/v1/secrets/bad/r/")["value"] == "as it was"  # REST loses one trailing slash


def _message(rpc: Rpc, fields: dict[str, Any]) -> Any:
    try:
        return message_of(rpc, fields)
    except json_format.ParseError:
        pytest.fail(f"the table is wrong: {rpc} cannot hold {_shown(fields)}")


def _shown(fields: dict[str, Any]) -> str:
    return repr(fields)[:120]
