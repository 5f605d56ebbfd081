"""The gateway's own replies: one fixed text per HTTP status, in the shape of the services' errors.

Envoy's words are never passed on: they can quote the body. For native gRPC 404 is UNIMPLEMENTED, as usual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 3, 4, 5, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED, PERMISSION_DENIED = 12, 13, 14, 16, 7


@dataclass(frozen=True, slots=True)
class Reply:
    """What a caller gets when Envoy itself answers with `status`."""

    status: int
    code: int
    reason: str
    message: str
    native_code: int = 0
    at_least: bool = False

    def values(self) -> dict[str, Any]:
        """For the template."""
        retry_after = [{"header": {"key": "retry-after", "value": "1"}}] if self.status == 429 else []
        return {
            "STATUS": self.status,
            "RUNTIME_KEY": f"reply_{self.status}",
            "OP": "GE" if self.at_least else "EQ",
            "CODE": self.code,
            "GRPC_CODE": str(self.native_code or self.code),
            "REASON": self.reason,
            "MESSAGE": self.message,
            "HEADERS": retry_after,
        }


REPLIES = (
    Reply(400, INVALID_ARGUMENT, "INVALID_ARGUMENT", "the request is not valid"),
    Reply(401, UNAUTHENTICATED, "UNAUTHENTICATED", "a valid token is needed"),
    Reply(403, PERMISSION_DENIED, "PERMISSION_DENIED", "this is not allowed"),
    Reply(404, NOT_FOUND, "NOT_FOUND", "there is no such call", native_code=UNIMPLEMENTED),
    Reply(405, UNIMPLEMENTED, "NOT_FOUND", "there is no such call"),
    Reply(408, DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the request did not arrive in time"),
    Reply(413, INVALID_ARGUMENT, "TOO_LARGE", "the request is larger than the limit"),
    Reply(415, INVALID_ARGUMENT, "INVALID_ARGUMENT", "the request is not valid"),
    Reply(429, RESOURCE_EXHAUSTED, "RATE_LIMITED", "too many requests"),
    Reply(431, INVALID_ARGUMENT, "TOO_LARGE", "the headers are larger than the limit"),
    Reply(500, INTERNAL, "INTERNAL", "something went wrong inside"),
    Reply(501, UNIMPLEMENTED, "NOT_FOUND", "there is no such call"),
    Reply(502, UNAVAILABLE, "UNAVAILABLE", "no replica of the service can answer now"),
    Reply(503, UNAVAILABLE, "UNAVAILABLE", "no replica of the service can answer now"),
    Reply(504, DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the deadline passed"),
    Reply(400, INVALID_ARGUMENT, "INVALID_ARGUMENT", "the request is not valid", at_least=True),
)
