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
    trailing: Metadata = ((DETAILS, to_status(error, request_id).SerializeToString()),)
    if retry:
        trailing += ((RETRY, "1"),)
    if isinstance(error, errors.RateLimited):
        trailing += ((RETRY_AFTER, str(error.metadata.get("retry_after", "1"))),)
    return Answer(CODES[error.kind], error.message, trailing)


def to_status(error: StrongBoxError, request_id: str) -> status_pb2.Status:
    """The refusal as a message: code, sentence, ErrorInfo and RequestInfo."""
    # ErrorInfo takes text only.
    facts = {name: str(value) for name, value in error.metadata.items()}
    status = status_pb2.Status(code=CODES[error.kind].value[0], message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts),
    )
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    return status


def to_error(failure: grpc.aio.AioRpcError | grpc.RpcError) -> StrongBoxError:
    """The refusal as it was raised on the other side; its request id is in `metadata["request_id"]`."""
    code = failure.code() if hasattr(failure, "code") else grpc.StatusCode.UNKNOWN
    text = (failure.details() if hasattr(failure, "details") else "") or ""
    return _error(code, text, _status_of(failure))


def from_status(status: status_pb2.Status) -> StrongBoxError:
    """The refusal that a message holds, as `to_status` made it."""
    known = {code.value[0]: code for code in grpc.StatusCode}
    return _error(known.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status)


def from_reason(reason: str, message: str = "") -> StrongBoxError:
    """The error that a reason names; `DependencyDown` for an unknown one, such as a newer service's."""
    return BY_REASON.get(reason, errors.DependencyDown)(message)


def _error(code: grpc.StatusCode, text: str, status: status_pb2.Status) -> StrongBoxError:
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    try:
        for detail in status.details:
            detail.Unpack(info)
            detail.Unpack(request)
    except DecodeError:
        info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    kind = _GENERAL.get(code, errors.Internal)
    ours = info.domain == DOMAIN
    error = (BY_REASON.get(info.reason, kind) if ours else kind)(text)
    error.metadata = dict(info.metadata) if ours else {}
    if request.request_id:
        error.metadata["request_id"] = request.request_id
    return error


def _status_of(failure: grpc.RpcError) -> status_pb2.Status:
    pairs: Any = failure.trailing_metadata() if hasattr(failure, "trailing_metadata") else None
    raw = dict(pairs or ()).get(DETAILS, b"")
    try:
        return status_pb2.Status.FromString(raw if isinstance(raw, bytes) else raw.encode())
    except DecodeError:
        return status_pb2.Status()


def _tree(root: type[StrongBoxError]) -> Iterator[type[StrongBoxError]]:
    yield root
    for below in root.__subclasses__():
        yield from _tree(below)


def _by_reason() -> dict[str, type[StrongBoxError]]:
    """The classes of strongbox.errors by reason; a service's own subclasses are not known elsewhere."""
    found = (kind for kind in _tree(StrongBoxError) if kind.__module__ == errors.__name__)
    table: dict[str, type[StrongBoxError]] = {}
    for kind in found:
        table.setdefault(kind.reason, kind)
    table["INTERNAL"] = errors.Internal
    return table


BY_REASON = _by_reason()
