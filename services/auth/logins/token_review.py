"""TokenReview: the API server of Kubernetes says whose token this is, whether it is still good, and for whom.

    POST https://<host>/apis/authentication.k8s.io/v1/tokenreviews   {"spec": {"token": …, "audiences": […]}}

Rules:
* Over TLS with the configured authority, host name checked; no redirect is followed, an answer beyond 256 KiB
  is refused, all within the request's deadline, eight at a time in threads.
* Asked with the reviewer's token (`reviewer_token`, or the configuration's), or with the login's own when
  there is neither (its service account then needs `system:auth-delegator`); then 401 means that the login's
  token is not valid. If the server does not let the reviewer ask, that is `MayNotReview`.
* An audience that was asked must be among those that the server names: a server that ignores audiences would
  otherwise vouch for a token that was made for somebody else.
* The token goes there and nowhere else: not into a log, an error or a record.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import structlog

from services.auth.logins.kubernetes_roles import Config, Identity, trusting
from strongbox.errors import DependencyDown, Overloaded

MAX_JWT = 16 << 10  # characters
MAX_ANSWER = 256 << 10  # bytes
AT_ONCE, MAX_WAITING = 8, 64
RESERVE = 1.0  # seconds that a login needs after the review
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):([^:]+)\Z")
_POD = "authentication.kubernetes.io/pod-uid"
_UID = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
_MAY_NOT = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
_log = structlog.get_logger(__name__)


class MayNotReview(DependencyDown):
    """The server does not let this reviewer ask: its token has expired, or its account lacks the right."""


def is_jwt(text: str) -> bool:
    """Whether `text` has the form of a signed token; anything else is not sent anywhere."""
    return len(text) <= MAX_JWT and _JWT.match(text) is not None


class Reviewer:
    """Asks the API server; one per process."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, "tokenreview")
        self._under_way = 0

    async def review(
        self, config: Config, reviewer: str, jwt: str, audience: str, deadline: float
    ) -> Identity | None:
        """Whose token it is; None: not valid, or not for `audience`. `reviewer` "": `jwt` itself asks.

        Raises `DependencyDown` (`MayNotReview`), `Overloaded`; `deadline` is monotonic.
        """
        if self._under_way >= MAX_WAITING:
            raise Overloaded
        left = deadline - RESERVE - time.monotonic()
        self._under_way += 1
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, _ask, config, reviewer, jwt, audience, max(0.1, left)
                )
        except TimeoutError:
            raise DependencyDown("the Kubernetes API server does not answer") from None
        finally:
            self._under_way -= 1


def _ask(config: Config, reviewer: str, jwt: str, audience: str, seconds: float) -> Identity | None:
    spec: dict[str, Any] = {"token": jwt}
    if audience:
        spec["audiences"] = [audience]
    body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec})
    url = urlsplit(config.host)
    link = http.client.HTTPSConnection(
        url.hostname or "", url.port or 443, timeout=seconds, context=_trusting(config.ca_cert)
    )
    headers = {"Authorization": f"Bearer {reviewer or jwt}", "Content-Type": "application/json"}
    try:
        link.request("POST", _PATH, body, headers)
        answer = link.getresponse()
        raw = answer.read(MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        _log.warning("the Kubernetes API server was not reached", why=type(error).__name__)
        raise DependencyDown("the Kubernetes API server was not reached") from None
    finally:
        link.close()
    if answer.status == http.HTTPStatus.UNAUTHORIZED and not reviewer:
        return None
    if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED) or len(raw) > MAX_ANSWER:
        _log.warning("the Kubernetes API server did not review", status=answer.status)
        kind = MayNotReview if answer.status in _MAY_NOT else DependencyDown
        raise kind("the Kubernetes API server did not review the token")
    return identity_in(raw, audience)


def identity_in(raw: bytes, audience: str) -> Identity | None:
    """Whom a TokenReview names, if anybody. Raises `DependencyDown` when `raw` is no TokenReview."""
    try:
        status = json.loads(raw)["status"]
        if status.get("authenticated") is not True:
            return None
        name, audiences = status["user"]["username"], status.get("audiences") or []
        found = _ACCOUNT.match(name)
        if found is None or (audience and audience not in audiences):
            return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DependencyDown("the Kubernetes API server answered with something else") from None
    return Identity(found[1], found[2], _pod_of(status["user"].get("extra")))


def _pod_of(extra: Any) -> str:
    """The uid of the pod that the token is bound to, which the server has checked; empty: to none."""
    told = extra.get(_POD) if isinstance(extra, dict) else None
    uid = told[0] if isinstance(told, list) and len(told) == 1 else ""
    return uid if isinstance(uid, str) and _UID.match(uid) else ""


_trusting = lru_cache(maxsize=4)(trusting)
