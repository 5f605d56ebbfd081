"""The API server's door: HTTPS, bearer tokens, RBAC; objects read, made, changed, removed and watched."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.rehearsal.control import kinds
from tests.rehearsal.control.calls import Call, Calls
from tests.rehearsal.control.store import Object, Refusal

WATCH = 300.0  # seconds that a watch lasts unless its client says less


class ApiServer:
    """Serves `calls` at an address; ends with the process."""

    def __init__(self, calls: Calls, address: tuple[str, int], pair: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        self._server = _Server(address, _handler(calls), context)
        threading.Thread(target=self._server.serve_forever, name="api", daemon=True).start()


class _Server(ThreadingHTTPServer):
    """A handshake of a slow client must not hold the others: each is made in its own thread."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: Any, context: ssl.SSLContext) -> None:
        super().__init__(address, handler)
        self._context, self._handler = context, handler

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(WATCH)
        try:
            with self._context.wrap_socket(request, server_side=True) as secure:
                self._handler(secure, client_address, self)
        except OSError:
            pass


def _handler(calls: Calls) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_PUT(self) -> None:
            self._answer("PUT")

        def do_PATCH(self) -> None:
            self._answer("PATCH")

        def do_DELETE(self) -> None:
            self._answer("DELETE")

        def _answer(self, method: str) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                url = urlsplit(self.path)
                caller = calls.tokens.caller(self.headers.get("authorization") or "")
                told = _told(calls.kinds, url.path)
                if told is not None:
                    self._send(200, told)
                    return
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                media = self.headers.get("content-type", "").partition(";")[0]
                call = Call.parse(calls.kinds, method, url.path, query, _object(raw, media), media)
                call.authorize(calls.tokens, caller)
                if call.verb == "watch":
                    self._watch(call)
                    return
                self._send(*calls.do(call))
            except Refusal as refusal:
                self._send(refusal.code, _status(refusal))

        def _watch(self, call: Call) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for kind, value in calls.watch(call):
                line = json.dumps({"type": kind, "object": value}).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def _send(self, code: int, value: Object | bytes) -> None:
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(code)
            plain = isinstance(value, bytes)
            self.send_header("content-type", "text/plain" if plain else "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _object(raw: bytes, media: str) -> Object:
    """The body. Raises Refusal 400, 415 (protobuf: kubectl then sends JSON)."""
    if not raw:
        return {}
    if not media.endswith("json"):
        raise Refusal(415, "UnsupportedMediaType", f"{media} is not known here")
    try:
        value = json.loads(raw)
    except ValueError:
        value = None
    if isinstance(value, list) and media == "application/json-patch+json":
        return {"steps": value}
    if not isinstance(value, dict):
        raise Refusal(400, "BadRequest", "the body is no object")
    return value


def _told(known: tuple[kinds.Kind, ...], path: str) -> Object | None:
    """Discovery: what there is; None: something else is asked for."""
    parts = path.strip("/").split("/")
    match parts:
        case ["api"]:
            return kinds.api_versions()
        case ["apis"]:
            return kinds.groups(known)
        case ["version"]:
            return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
        case ["openapi", "v3"]:
            return kinds.openapi_index(known)
        case ["openapi", "v3", "api" | "apis", *version]:
            return kinds.openapi(known, "/".join(version))
        case ["api", "v1"]:
            return kinds.resources(known, "v1")
        case ["apis", group, version]:
            return kinds.resources(known, f"{group}/{version}")
    return None


def _status(refusal: Refusal) -> Object:
    causes = [{"field": field, "reason": "FieldValueInvalid"} for field in refusal.fields]
    return {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": str(refusal),
        "reason": refusal.reason, "code": refusal.code, "details": {"causes": causes},
    }  # fmt: skip
