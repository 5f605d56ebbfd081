"""As much of Kubernetes' API as the certificates need: secrets of one namespace, read and put."""

from __future__ import annotations

import base64
import json
import re
import ssl
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SERVER = "https://kubernetes.default.svc"
_TIMEOUT = 10.0  # seconds


class Conflict(Exception):
    """Somebody else changed or made the secret meanwhile."""


class Api:
    """One namespace's secrets, as the account whose token is in `account` may see them."""

    def __init__(self, server: str, namespace: str, account: Path, context: ssl.SSLContext | None) -> None:
        self._url = f"{server}/api/v1/namespaces/{namespace}/secrets"
        self._account = account
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    @classmethod
    def in_cluster(cls, namespace: str) -> Api:
        """As the pod's own account. Raises OSError outside a pod."""
        context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        return cls(_SERVER, namespace, _ACCOUNT, context)

    def read(self, name: str) -> dict[str, Any] | None:
        """The secret with `data` decoded to bytes, or None. Raises OSError."""
        status, found = self._call("GET", f"/{name}")
        if status == HTTPStatus.NOT_FOUND:
            return None
        data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        return {**found, "data": data}

    def put(self, name: str, data: dict[str, bytes], known: dict[str, Any] | None) -> None:
        """Make it (`known` None), or replace exactly what was read. Raises Conflict, OSError."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        # What people have put on a secret (labels, annotations, owners) stays on it.
        metadata: dict[str, Any] = {**known["metadata"]} if known is not None else {"name": name}
        metadata.pop("managedFields", None)
        metadata["labels"] = {**(metadata.get("labels") or {}), "app.kubernetes.io/part-of": "strongbox"}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded}
        if known is None:
            self._call("POST", "", {**body, "type": "kubernetes.io/tls"}, name)
            return
        self._call("PUT", f"/{name}", {**body, "type": known.get("type", "kubernetes.io/tls")}, name)

    def _call(
        self, method: str, path: str, body: object = None, name: str = ""
    ) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(self._url + path, method=method)  # noqa: S310  the server's, ours
        # Read each time: the kubelet renews it.
        token = (self._account / "token").read_text(encoding="ascii").strip()
        request.add_header("authorization", f"Bearer {token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == HTTPStatus.NOT_FOUND and method == "GET":
                    return error.code, {}
                if error.code == HTTPStatus.CONFLICT:
                    raise Conflict(
                        f"the secret {name} was changed or made by somebody else meanwhile"
                    ) from None
                why = _why(error)
                raise OSError(f"{method} secret {name or path[1:]}: HTTP {error.code}{why}") from None


def _why(error: urllib.error.HTTPError) -> str:
    """The reason and the fields that a refusal names; never its message, which can quote a body."""
    try:
        told = json.loads(error.read(64 << 10))
        causes = (told.get("details") or {}).get("causes") or []
        fields = [str(cause.get("field", "")) for cause in causes]
        words = [str(told.get("reason", "")), *fields]
    except (ValueError, AttributeError, OSError):
        return ""
    shown = [word for word in words if re.fullmatch(r"[A-Za-z0-9.\[\]_-]{1,64}", word)]
    return f" ({', '.join(shown)})" if shown else ""
