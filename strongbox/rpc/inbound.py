"""What an interceptor found out about a call before its handler runs."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Inbound:
    """`token` as it was sent ("" when none); `deadline` in monotonic seconds.

    `client` is the caller's address as the gateway saw it. `idempotency_key` is the caller's own ("" when
    none); `request_id` is the gateway's, never the client's.
    """

    token: str = field(repr=False)
    request_id: str
    client: str
    idempotency_key: str
    deadline: float


_current: ContextVar[Inbound] = ContextVar("inbound")


def bind(inbound: Inbound) -> None:
    """Make `inbound` the one of this call; for the interceptor."""
    _current.set(inbound)


def inbound_of(context: Any) -> Inbound:
    """The Inbound of the call being handled; `context` only shows that there is one."""
    del context
    return _current.get()
