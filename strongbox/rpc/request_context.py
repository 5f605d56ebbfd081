"""What an interceptor found out about a call before its handler runs.

A token with a limited number of uses is let in only with a use taken for this request: the guard raises
`UseNeeded`, the border has auth take one (process.token_uses) and runs the handler again with `use` set.
Where no use is taken, such a token is refused: `UseNeeded` is an `Unauthenticated`.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from strongbox.errors import Unauthenticated


@dataclass(frozen=True, slots=True)
class Inbound:
    """`token` as it was sent ("" when none); `deadline` in monotonic seconds.

    `client` is the caller's address as the gateway saw it. `idempotency_key` is the caller's own ("" when
    none); `request_id` is the gateway's, never the client's. `use`: the number of the token's use that auth
    took for this very request (0: none was).
    """

    token: str = field(repr=False)
    request_id: str
    client: str
    idempotency_key: str
    deadline: float
    use: int = 0


class UseNeeded(Unauthenticated):
    """The token has a limited number of uses, and none was taken for this request."""


_current: ContextVar[Inbound] = ContextVar("inbound")


def bind(inbound: Inbound) -> None:
    """Make `inbound` the one of this call; for the interceptor."""
    _current.set(inbound)


def inbound_of(context: Any) -> Inbound:
    """The Inbound of the call being handled; `context` only shows that there is one."""
    del context
    return _current.get()
