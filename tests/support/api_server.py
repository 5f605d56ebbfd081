"""The part of a Kubernetes API server that reviews tokens: real TLS, real signed tokens, verified as it does.

Tokens are ES256 JWTs as service accounts have them. The server verifies signature, issuer, expiry and
audience, and the right of whoever asks to review at all; it knows nothing else.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

ISSUER = "https://kubernetes.default.svc"
OWN_AUDIENCE = ISSUER
LEEWAY = 60.0  # seconds that a token is good after its end, seen at kube-apiserver 1.36
REVIEWER = ("kube-system", "strongbox-reviewer")


class ApiServer:
    """Listens on 127.0.0.1; a context manager.

    `anybody_reviews`: every good token may review (itself), as when `system:auth-delegator` is bound to all.
    `audience_aware`: whether it heeds audiences. `behaviour`: what it answers instead of a review.
    """

    def __init__(self, *, anybody_reviews: bool = True, audience_aware: bool = True) -> None:
        self.anybody_reviews, self.audience_aware = anybody_reviews, audience_aware
        self.behaviour: tuple[int, bytes] | None = None
        self.delay = 0.0
        self.asked: list[dict[str, Any]] = []
        self._signing = ec.generate_private_key(ec.SECP256R1())
        authority, self._pair = _certificates()
        self.ca_cert = authority
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = self._context().wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def host(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def token(
        self, namespace: str, account: str, *, audience: str = OWN_AUDIENCE, ttl: float = 600.0, **claims: Any
    ) -> str:
        """A service account's token, signed."""
        now = time.time()
        body = {
            "iss": ISSUER, "aud": [audience], "iat": int(now), "exp": now + ttl,
            "sub": f"system:serviceaccount:{namespace}:{account}", **claims,
        }  # fmt: skip
        signed = f"{_b64(json.dumps({'alg': 'ES256', 'typ': 'JWT'}))}.{_b64(json.dumps(body))}"
        r, s = decode_dss_signature(self._signing.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def claims_of(self, jwt: str, audiences: list[str]) -> tuple[dict[str, Any], list[str]] | None:
        """What a good token says and for which of these audiences it is; None: it is no good."""
        try:
            header, body, signature = jwt.split(".")
            raw = _unb64(signature)
            if json.loads(_unb64(header)).get("alg") != "ES256" or len(raw) != 64:
                return None
            r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
            self._signing.public_key().verify(
                encode_dss_signature(r, s), f"{header}.{body}".encode(), ec.ECDSA(hashes.SHA256())
            )
            claims = json.loads(_unb64(body))
        except (ValueError, InvalidSignature):
            return None
        wanted = (audiences if self.audience_aware else []) or [OWN_AUDIENCE]
        fitting = [one for one in wanted if one in claims["aud"]]
        if not self.audience_aware:
            fitting = fitting or list(claims["aud"])
        good = claims["iss"] == ISSUER and claims["exp"] > time.time() - LEEWAY and fitting
        return (claims, fitting) if good else None

    def review(self, bearer: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        """The answer to one TokenReview."""
        self.asked.append(asked)
        time.sleep(self.delay)
        if self.behaviour is not None:
            return self.behaviour
        caller = self.claims_of(bearer, [])
        if caller is None:
            return 401, b'{"kind": "Status", "code": 401}'
        if not self.anybody_reviews and caller[0]["sub"] != "system:serviceaccount:" + ":".join(REVIEWER):
            return 403, b'{"kind": "Status", "code": 403}'
        found = self.claims_of(asked["spec"]["token"], asked["spec"].get("audiences", []))
        status: dict[str, Any] = {"authenticated": found is not None}
        if found is not None:
            status["user"] = {"username": found[0]["sub"], "groups": ["system:serviceaccounts"]}
            if self.audience_aware:
                status["audiences"] = found[1]
        return 201, json.dumps({**asked, "status": status}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == "/apis/authentication.k8s.io/v1/tokenreviews"
                assert (body["apiVersion"], body["kind"]) == ("authentication.k8s.io/v1", "TokenReview")
                status, answer = server.review(self.headers["authorization"].removeprefix("Bearer "), body)
                self.send_response(status)
                self.send_header("location", "https://127.0.0.1:1/elsewhere")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "pair.pem")
            file.write_text(self._pair)
            context.load_cert_chain(file)
        return context

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _b64(raw: str | bytes) -> str:
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _certificates() -> tuple[str, str]:
    """An authority (PEM), and a server's key and certificate for 127.0.0.1 (PEM, one text)."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in ("authority", "server")]

    def signed(of: int, *extensions: x509.ExtensionType) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder().subject_name(names[of]).issuer_name(names[0])
            .public_key(keys[of].public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )  # fmt: skip
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(keys[0], hashes.SHA256())

    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    pem = serialization.Encoding.PEM
    authority = signed(0, x509.BasicConstraints(ca=True, path_length=None)).public_bytes(pem).decode()
    key = keys[1].private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()  # fmt: skip
    return authority, key + signed(1, address).public_bytes(pem).decode()
