"""The border between the error tree and gRPC, in both directions. Nothing else names a status code.

An error becomes a code, a sentence, and `grpc-status-details-bin`: a google.rpc.Status with an
ErrorInfo(reason, domain "strongbox", metadata) and a RequestInfo(request id). Coming back, the reason names
the class; an answer without one (Envoy's own, a broken connection) becomes the general class of its code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from strongbox import errors
from strongbox.errors import StrongBoxError

DOMAIN = "strongbox"
DETAILS = "grpc-status-details-bin"
RETRY = "x-strongbox-retry"
RETRY_AFTER = "retry-after"
Metadata = tuple[tuple[str, str | bytes], ...]

CODES: dict[str, grpc.StatusCode] = {
    "INVALID_ARGUMENT": grpc.StatusCode.INVALID_ARGUMENT,
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ABORTED": grpc.StatusCode.ABORTED,
    "RESOURCE_EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}
_GENERAL: dict[grpc.StatusCode, type[StrongBoxError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.FAILED_PRECONDITION: errors.InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNIMPLEMENTED: errors.NotFound,
    grpc.StatusCode.ABORTED: errors.VersionMismatch,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.RateLimited,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}


class Answer(NamedTuple):
    """What `context.abort` takes."""

    code: grpc.StatusCode
    message: str
    trailing: Metadata


def to_answer(error: StrongBoxError, request_id: str, *, retry: bool = False) -> Answer:
    """The refusal on the wire; `retry`: the gateway may send the request again, nothing has happened."""
    code = CODES[error.kind]
    # Pairs without a value would be refused by nobody and read by nobody.
    facts = {name: str(value) for name, value in error.metadata.items()}
    status = status_pb2.Status(code=code.value[0], message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts),
    )
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    trailing: Metadata = ((DETAILS, status.SerializeToString()),)
    if retry:
        trailing += ((RETRY, "1"),)
    if isinstance(error, errors.RateLimited):
        trailing += ((RETRY_AFTER, facts.get("retry_after", "1")),)
    return Answer(code, error.message, trailing)


def to_error(failure: grpc.aio.AioRpcError | grpc.RpcError) -> StrongBoxError:
    """The refusal as it was raised on the other side; its request id is in `metadata["request_id"]`."""
    code = failure.code() if hasattr(failure, "code") else grpc.StatusCode.UNKNOWN
    info, request_id = _details_of(failure)
    facts = dict(info.metadata) if info is not None else {}
    if request_id:
        facts["request_id"] = request_id
    text = (failure.details() if hasattr(failure, "details") else "") or ""
    kind = _GENERAL.get(code, errors.Internal)
    if info is not None:
        kind = BY_REASON.get(info.reason, kind)
    error = kind(text)
    error.metadata = facts
    return error


def from_reason(reason: str, message: str = "") -> StrongBoxError:
    """The error that a reason names; an unknown one is `DependencyDown`: a newer neighbour's refusal."""
    return BY_REASON.get(reason, errors.DependencyDown)(message)


def _details_of(failure: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo | None, str]:
    pairs: Any = failure.trailing_metadata() if hasattr(failure, "trailing_metadata") else None
    raw = dict(pairs or ()).get(DETAILS, b"")
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    found = False
    try:
        for detail in status_pb2.Status.FromString(raw if isinstance(raw, bytes) else raw.encode()).details:
            found = detail.Unpack(info) or found
            detail.Unpack(request)
    except DecodeError:
        return None, ""
    return (info if found and info.domain == DOMAIN else None), request.request_id


def _tree(root: type[StrongBoxError]) -> Iterator[type[StrongBoxError]]:
    yield root
    for below in root.__subclasses__():
        yield from _tree(below)


def _by_reason() -> dict[str, type[StrongBoxError]]:
    """Only the tree of strongbox.errors: what a service subclasses for itself is not known elsewhere."""
    found = (kind for kind in _tree(StrongBoxError) if kind.__module__ == errors.__name__)
    table: dict[str, type[StrongBoxError]] = {}
    for kind in found:
        table.setdefault(kind.reason, kind)
    table["INTERNAL"] = errors.Internal
    return table


BY_REASON = _by_reason()
