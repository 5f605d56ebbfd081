"""Errors over the border and back."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from strongbox import errors
from strongbox.errors import StrongBoxError
from strongbox.rpc import error_mapping
from strongbox.rpc.error_mapping import BY_REASON, DETAILS, from_reason, to_answer, to_error


def _received(answer: error_mapping.Answer) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(*answer.trailing)
    return _failure(answer.code, trailing, answer.message)


def _failure(code: grpc.StatusCode, trailing: grpc.aio.Metadata, details: str = "") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details, "")


@pytest.mark.parametrize("kind", sorted(BY_REASON.values(), key=str))
def test_every_error_comes_back_as_what_it_was(kind: type[StrongBoxError]) -> None:
    sent = kind("the words", version="7")
    came = to_error(_received(to_answer(sent, "request-1")))
    assert type(came) is kind
    assert came.message == "the words"
    assert came.metadata == {"version": "7", "request_id": "request-1"}


def test_every_class_of_the_tree_has_a_reason_of_its_own() -> None:
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StrongBoxError)
    }
    assert set(BY_REASON.values()) == kinds - {StrongBoxError}


def test_the_status_names_reason_domain_and_request() -> None:
    answer = to_answer(errors.VersionMismatch(current="3"), "request-1")
    status = status_pb2.Status.FromString(dict(answer.trailing)[DETAILS])
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "VERSION_MISMATCH",
        "strongbox",
        {"current": "3"},
    )
    assert (status.code, answer.code) == (10, grpc.StatusCode.ABORTED)
    assert request.request_id == "request-1"


def test_only_what_may_be_repeated_says_so() -> None:
    refusal = errors.NoQuorum()
    assert ("x-strongbox-retry", "1") in to_answer(refusal, "", retry=True).trailing
    assert "x-strongbox-retry" not in dict(to_answer(refusal, "").trailing)


def test_too_many_requests_say_when_to_come_back() -> None:
    assert ("retry-after", "7") in to_answer(errors.RateLimited(retry_after="7"), "").trailing
    assert ("retry-after", "1") in to_answer(errors.RateLimited(), "").trailing


def test_an_answer_without_a_reason_is_the_general_error_of_its_code() -> None:
    def bare(code: grpc.StatusCode, *pairs: tuple[str, bytes]) -> StrongBoxError:
        return to_error(_failure(code, grpc.aio.Metadata(*pairs)))

    assert type(bare(grpc.StatusCode.UNAVAILABLE)) is errors.Unavailable
    assert type(bare(grpc.StatusCode.UNKNOWN)) is errors.Internal
    assert type(bare(grpc.StatusCode.NOT_FOUND, (DETAILS, b"\xff garbage"))) is errors.NotFound


def test_a_reason_of_another_domain_is_not_believed() -> None:
    status = status_pb2.Status(code=14)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SEALED", domain="elsewhere"))
    pairs = grpc.aio.Metadata((DETAILS, status.SerializeToString()))
    failure = _failure(grpc.StatusCode.UNAVAILABLE, pairs)
    assert type(to_error(failure)) is errors.Unavailable


def test_an_unknown_reason_of_a_neighbour_is_a_dependency_that_is_down() -> None:
    assert type(from_reason("SEALED")) is errors.Sealed
    assert type(from_reason("SOMETHING_NEW")) is errors.DependencyDown
