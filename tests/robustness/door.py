"""One client's way through one gateway: REST on a kept connection, or native gRPC. Never raises.

It gives what was answered, or that nothing was: what a broken connection means is for the history to say.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc

from tests.support.clients import refusal_of_call
from tests.support.surface import rpc_named

TIMEOUT = 8.0  # seconds: four times a request's own deadline; then nobody answers any more
NOTHING = 0  # the status of no answer
_DONE, _GONE = 200, 404
LEFT = "LEFT"  # the reason of no answer, when the client did not wait for one


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status (natively the one that belongs to the code), the reason, the body, the request id."""

    status: int
    reason: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""


class Rest:
    """JSON over one kept connection, opened anew when it breaks."""

    protocol = "REST"

    def __init__(self, gateway: str) -> None:
        parts = urlsplit(gateway)
        self._address = (str(parts.hostname), int(parts.port or 80))
        self._connection: http.client.HTTPConnection | None = None

    def call(
        self, token: str, method: str, path: str, body: Any = None, key: str = "", patience: float = TIMEOUT
    ) -> Answer:
        """One request; `key` is its idempotency key. After `patience` seconds the connection is closed."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if key:
            headers["idempotency-key"] = key
        content = None
        if body is not None:
            headers["content-type"], content = "application/json", json.dumps(body)
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT)
            self._connection.request(method, path, content, headers)
            self._connection.sock.settimeout(patience)
            answer = self._connection.getresponse()
            return _understood(answer.status, answer.read(), answer.getheader("x-request-id") or "")
        except (OSError, http.client.HTTPException) as failure:
            self.close()
            left = isinstance(failure, TimeoutError) and patience < TIMEOUT
            return Answer(NOTHING, LEFT if left else type(failure).__name__)

    def until_done(
        self, token: str, method: str, path: str, body: Any = None, within: float = 30.0
    ) -> Answer:
        """Ask until it is done; what is to be gone may be gone already. Raises TimeoutError."""
        deadline = time.monotonic() + within
        while True:
            answer = self.call(token, method, path, body)
            if answer.status == _DONE or (method == "DELETE" and answer.status == _GONE):
                return answer
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path}: {answer.status} {answer.reason}")
            time.sleep(0.2)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _understood(status: int, content: bytes, request_id: str) -> Answer:
    try:
        body = json.loads(content) if content else {}
    except ValueError:
        return Answer(status, "NOT_JSON", {}, request_id)
    reasons = [one.get("reason") for one in body.get("details", []) if isinstance(one, dict)]
    return Answer(status, next((str(one) for one in reasons if one), ""), body, request_id)


_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.CANCELLED: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


_LEAVING = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Native:
    """gRPC calls by the RPC's name."""

    protocol = "gRPC"

    def __init__(self, gateway: str) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        self._channel = grpc.insecure_channel(gateway.removeprefix("http://"), options=options)

    def call(self, token: str, name: str, /, patience: float = TIMEOUT, **fields: Any) -> Answer:
        """One request; the body holds the answer's message under `message`.

        After `patience` seconds the call is cancelled; the service is told that as its deadline.
        """
        rpc = rpc_named(name)
        method = self._channel.unary_unary(
            rpc.full_name,
            request_serializer=lambda it: it.SerializeToString(),
            response_deserializer=rpc.response.FromString,
        )
        metadata = (("authorization", f"Bearer {token}"), ("idempotency-key", secrets.token_hex(8)))
        try:
            message, call = method.with_call(rpc.request(**fields), timeout=patience, metadata=metadata)
        except grpc.RpcError as error:
            refusal = refusal_of_call(error)
            status = _STATUS.get(error.code(), 500)
            if patience < TIMEOUT and error.code() in _LEAVING and not refusal.reason:
                return Answer(NOTHING, LEFT)
            if status == 503 and not refusal.reason:
                status = NOTHING  # gRPC's own word for a connection that broke
            return Answer(status, refusal.reason or error.code().name, {}, refusal.request_id)
        headers = dict(call.initial_metadata())
        return Answer(200, "", {"message": message}, str(headers.get("x-request-id", "")))

    def close(self) -> None:
        self._channel.close()
