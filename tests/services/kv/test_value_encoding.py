"""What a secret may hold, and that it comes back as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.kv import value_encoding
from strongbox.errors import InvalidInput, TooLarge
from strongbox.kv.v1 import kv_service_pb2 as pb

TEXT = st.characters(exclude_categories=["Cs"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(-(2.0**52), 2.0**52, allow_nan=False) | st.text(TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(TEXT, max_size=5), inner, max_size=3),
    max_leaves=10,
)


def struct(data: dict[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(data, struct_pb2.Struct())


def nested(depth: int, kind: str) -> struct_pb2.Struct:
    """An object that is so deep, of objects or of lists in an object."""
    inner: Any = {} if kind == "object" else []
    for _ in range(depth - 2):
        inner = {"a": inner} if kind == "object" else [inner]
    data = struct({})
    data.update({"a": inner}) if depth > 1 else None
    return data


def back(request: pb.WriteSecretRequest) -> pb.ReadSecretResponse:
    response = pb.ReadSecretResponse()
    value_encoding.fill(response, value_encoding.plaintext_of(request))
    return pb.ReadSecretResponse.FromString(response.SerializeToString())


@given(st.dictionaries(st.text(TEXT, max_size=8), JSON, max_size=4))
def test_an_object_comes_back_as_it_was(data: dict[str, Any]) -> None:
    sent = struct(data)
    response = back(pb.WriteSecretRequest(data=sent))
    assert response.HasField("data")
    assert response.data == sent


@pytest.mark.parametrize("value", ["", "x", "\0", "ü\r\n", "t", "d"])
def test_text_comes_back_as_it_was(value: str) -> None:
    response = back(pb.WriteSecretRequest(value=value))
    assert response.HasField("value")
    assert response.value == value


@pytest.mark.parametrize("value", [b"", b"\xff\x00", b"t"])
def test_bytes_come_back_as_they_were(value: bytes) -> None:
    response = back(pb.WriteSecretRequest(binary=value))
    assert response.HasField("binary")
    assert response.binary == value


@pytest.mark.parametrize(
    "request_",
    [
        pb.WriteSecretRequest(),
        pb.WriteSecretRequest(value="a", binary=b"a"),
        pb.WriteSecretRequest(value="", data=struct({})),
    ],
)
def test_none_or_several_are_refused(request_: pb.WriteSecretRequest) -> None:
    with pytest.raises(InvalidInput):
        value_encoding.plaintext_of(request_)


def test_a_value_has_at_most_512_kib() -> None:
    for good in ({"value": "x" * (512 << 10)}, {"binary": bytes(512 << 10)}):
        value_encoding.plaintext_of(pb.WriteSecretRequest(**good))
    for bad in (
        pb.WriteSecretRequest(value="ü" * (256 << 10) + "x"),
        pb.WriteSecretRequest(binary=bytes((512 << 10) + 1)),
        pb.WriteSecretRequest(data=struct({"a": "x" * (512 << 10)})),
    ):
        with pytest.raises(TooLarge):
            value_encoding.plaintext_of(bad)


@pytest.mark.parametrize("kind", ["object", "list"])
def test_an_object_is_at_most_32_deep_and_that_deep_it_passes_the_wire(kind: str) -> None:
    deep = pb.WriteSecretRequest(path="a", data=nested(32, kind))
    arrived = pb.WriteSecretRequest.FromString(deep.SerializeToString())
    assert back(arrived).data == deep.data
    with pytest.raises(InvalidInput, match="deep"):
        value_encoding.plaintext_of(pb.WriteSecretRequest(data=nested(33, kind)))


@pytest.mark.parametrize("number", [2.0**53, -(2.0**53), 1e300, math.inf, -math.inf, math.nan])
def test_numbers_that_a_double_cannot_keep_are_refused_wherever_they_are(number: float) -> None:
    value = struct_pb2.Value(number_value=number)
    for data in (
        struct_pb2.Struct(fields={"a": value}),
        struct_pb2.Struct(fields={"a": struct_pb2.Value(list_value=struct_pb2.ListValue(values=[value]))}),
    ):
        with pytest.raises(InvalidInput, match="2\\^53"):
            value_encoding.plaintext_of(pb.WriteSecretRequest(data=data))


def test_the_largest_exact_integers_are_kept() -> None:
    sent = struct({"a": 2**53 - 1, "b": -(2**53) + 1, "c": 0.1})
    assert back(pb.WriteSecretRequest(data=sent)).data == sent


def test_a_value_of_no_kind_is_refused() -> None:
    data = struct_pb2.Struct(fields={"a": struct_pb2.Value()})
    with pytest.raises(InvalidInput, match="no kind"):
        value_encoding.plaintext_of(pb.WriteSecretRequest(data=data))


def test_no_message_quotes_what_was_sent() -> None:
    with pytest.raises(InvalidInput) as refused:
        value_encoding.plaintext_of(pb.WriteSecretRequest(value="hunter2", binary=b"hunter2"))
    assert "hunter2" not in refused.value.message
