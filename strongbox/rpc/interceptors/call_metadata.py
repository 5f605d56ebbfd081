"""What a call says of itself, in its metadata. Only what the gateway says is believed about others.

* Token: `authorization: Bearer <token>` or `x-vault-token`; ignored where the rule requires none.
* Request id: the gateway's; from anybody else, or missing, a new one is made.
* Client: what the gateway saw (the last of `x-forwarded-for`, which it appended itself); else the peer's own.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

from strongbox.errors import InvalidInput
from strongbox.rpc.method_rules import Access
from strongbox.rpc.peer_identity import GATEWAY, Peer
from strongbox.rpc.request_context import Inbound

MAX_KEY = 128  # characters of an idempotency key
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ADDRESS = re.compile(r"[0-9a-fA-F.:]{2,45}")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}")
_BEARER = "bearer "


def read_inbound(context: Any, peer: Peer, access: Access, started: float) -> Inbound:
    """The call's Inbound. Raises InvalidInput for an idempotency key that is none."""
    # One key may come twice; the last one wins, as in Envoy's own reading.
    said: dict[str, Any] = dict(context.invocation_metadata() or ())
    return Inbound(
        token=_token(said) if access.token_required else "",
        request_id=_request_id(said) if peer.service == GATEWAY else new_request_id(),
        client=_client(said, peer, context),
        idempotency_key=_idempotency_key(said),
        deadline=_deadline(context, access, started),
    )


def new_request_id() -> str:
    """A random UUID, as the gateway makes them."""
    return str(uuid.uuid4())


def _token(said: dict[str, Any]) -> str:
    bearer = said.get("authorization", "")
    if bearer[: len(_BEARER)].lower() == _BEARER:
        return str(bearer[len(_BEARER) :].strip())
    return str(said.get("x-vault-token", ""))


def _request_id(said: dict[str, Any]) -> str:
    told = said.get("x-request-id", "")
    return told if _REQUEST_ID.fullmatch(told) else new_request_id()


def _client(said: dict[str, Any], peer: Peer, context: Any) -> str:
    if peer.service == GATEWAY:
        told = said.get("x-envoy-external-address") or said.get("x-forwarded-for", "")
        address = told.rpartition(",")[2].strip()
        return address if _ADDRESS.fullmatch(address) else ""
    # "ipv4:127.0.0.1:4242", "ipv6:%5B::1%5D:4242"
    host = context.peer().partition(":")[2].rpartition(":")[0]
    return str(host.replace("%5B", "").replace("%5D", ""))


def _idempotency_key(said: dict[str, Any]) -> str:
    key = said.get("idempotency-key", "")
    if key and not _KEY.fullmatch(key):
        raise InvalidInput(f"an idempotency key has 1 to {MAX_KEY} visible ASCII characters")
    return str(key)


def _deadline(context: Any, access: Access, started: float) -> float:
    left: float | None = context.time_remaining()
    if left is None:
        return started + access.limit
    return min(started + access.limit, time.monotonic() + left)
