"""Two small clients for tests, REST and native gRPC, that refuse alike: both raise `Refused`.

They share no code with the service, so that both sides cannot be wrong together.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Generator
from typing import Any, Self

import grpc
import httpx
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tests.support.surface import Rpc, rpc_named

TIMEOUT = 10.0
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_REQUEST_INFO = "type.googleapis.com/google.rpc.RequestInfo"


class Refused(Exception):
    """An error answer: gRPC code by name, HTTP status (0 over gRPC), and what the details hold."""

    def __init__(self, code: str, http: int, message: str, info: dict[str, Any], request_id: str) -> None:
        self.code, self.http, self.message, self.request_id = code, http, message, request_id
        self.reason, self.domain = str(info.get("reason", "")), str(info.get("domain", ""))
        self.metadata = dict(info.get("metadata", {}))
        super().__init__(f"{http or ''} {code} {self.reason}: {message}".strip())


class Patience:
    """Asks again what a machine too busy for etcd's heartbeats refused with 503 or 504, and counts how often.

    For tests of what an answer is, not of whether there is one. What is asked again carries the same
    idempotency key, so nothing is done twice.
    """

    REASONS = frozenset(
        {"NO_QUORUM", "UNKNOWN_OUTCOME", "DEPENDENCY_DOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
    )

    def __init__(self, seconds: float = 15.0) -> None:
        self.seconds, self.spent = seconds, 0

    def ask(self, attempt: Callable[[], Any]) -> Any:
        """What `attempt` gives or raises in the end."""
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                return attempt()
            except Refused as refusal:
                if refusal.reason not in self.REASONS or time.monotonic() > deadline:
                    raise
            self.spent += 1
            time.sleep(0.1)


NONE = Patience(0)


class RestClient:
    """JSON over HTTP/1.1 through one gateway, on one kept connection."""

    def __init__(self, gateway: str, token: str = "", patience: Patience = NONE) -> None:
        self.gateway, self._patience = gateway, patience
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # Plain HTTP on loopback; `verify` would read every authority of the system for each client.
        self._client = httpx.Client(base_url=gateway, headers=headers, timeout=TIMEOUT, verify=False)

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> dict[str, Any]:
        """The answer's JSON. Raises Refused; httpx errors when there is no answer."""
        content, key = None if body is None else json.dumps(body).encode(), secrets.token_hex(8)

        def attempt() -> dict[str, Any]:
            answer = self.raw(method, path, content, key, **params)
            if answer.status_code != 200:
                raise refusal_of(answer)
            return dict(answer.json())

        return dict(self._patience.ask(attempt))

    def raw(
        self, method: str, path: str, content: bytes | None = None, key: str = "", /, **params: Any
    ) -> httpx.Response:
        """The answer as it is; `path` goes out exactly as written, `key` as the idempotency key."""
        headers = {"content-type": "application/json"} if content is not None else {}
        headers |= {"idempotency-key": key} if key else {}
        # A raw target: httpx would otherwise tidy dots and escapes, which are what some tests are about.
        request = self._client.build_request(
            method, "/", content=content, params=params or None, headers=headers
        )
        query = request.url.raw_path.partition(b"?")
        target = path.encode() + (b"?" + query[2] if query[1] else b"")
        request.extensions = {**request.extensions, "target": target}
        return self._client.send(request)

    def lines(self, path: str, **params: Any) -> Generator[dict[str, Any], None, None]:
        """The objects of a stream of JSON lines, as they come; close it to end the call. Raises Refused."""
        with self._client.stream("GET", path, params=params) as answer:
            if answer.status_code != 200:
                answer.read()
                raise refusal_of(answer)
            yield from (json.loads(line) for line in answer.iter_lines() if line)

    def read(self, path: str, **params: Any) -> dict[str, Any]:
        return self.call("GET", f"/v1/secrets/{path}", **params)

    def write(self, path: str, value: str, **fields: Any) -> dict[str, Any]:
        return self.call("PUT", f"/v1/secrets/{path}", {"value": value, **fields})

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def refusal_of(answer: httpx.Response) -> Refused:
    """Read a google.rpc.Status in JSON; what is missing is empty."""
    try:
        body = answer.json()
    except ValueError:
        return Refused("", answer.status_code, answer.text[:200], {}, "")
    details = {str(detail.get("@type")): detail for detail in body.get("details", [])}
    return Refused(
        _code_name(int(body.get("code", 2))), answer.status_code, str(body.get("message", "")),
        details.get(_ERROR_INFO, {}), str(details.get(_REQUEST_INFO, {}).get("request_id") or ""),
    )  # fmt: skip


def _code_name(number: int) -> str:
    return next((code.name for code in grpc.StatusCode if code.value[0] == number), str(number))


class GrpcClient:
    """Native gRPC through one gateway; calls go by the RPC's name."""

    def __init__(self, address: str, token: str = "", patience: Patience = NONE) -> None:
        self._patience = patience
        self._channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        )
        self._token = token

    def call(self, name: str, /, **fields: Any) -> Any:
        """The answer. Raises Refused."""
        rpc = rpc_named(name)
        return self.send(rpc, rpc.request(**fields))

    def send(self, rpc: Rpc, request: Message | bytes, timeout: float = TIMEOUT) -> Any:
        """One call with this message, or with these bytes in its place; of a stream the first answer.

        Raises Refused.
        """
        call = self._method(rpc)
        metadata = (("idempotency-key", secrets.token_hex(8)), *self._authorization)

        def attempt() -> Any:
            try:
                answer = call(request, timeout=timeout, metadata=metadata)
                return next(answer) if rpc.is_streaming else answer
            except grpc.RpcError as error:
                raise _refusal_of_call(error) from None

        return self._patience.ask(attempt)

    def stream(self, name: str, /, **fields: Any) -> Any:
        """The answers of a streaming call, one by one; `cancel()` ends it."""
        rpc = rpc_named(name)
        return self._method(rpc)(rpc.request(**fields), timeout=60, metadata=self._authorization)

    def _method(self, rpc: Rpc) -> Any:
        make = self._channel.unary_stream if rpc.is_streaming else self._channel.unary_unary
        return make(
            rpc.full_name,
            request_serializer=lambda it: it if isinstance(it, bytes) else it.SerializeToString(),
            response_deserializer=rpc.response.FromString,
        )

    @property
    def _authorization(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refusal_of_call(error: Any) -> Refused:
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(request)
    facts = {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
    return Refused(error.code().name, 0, str(error.details()), facts, request.request_id)
