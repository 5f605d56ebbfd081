"""What is told about each call when it is over: one log line, one count, and whether it may be repeated.

A line names nobody but the peer, the client's address and the request id; the token's accessor is in the
audit trail. Refusals are logged at level info, successes at debug: a line costs 12 µs by itself, but 50 µs in
a loaded process, because a write releases the interpreter's lock. Refusals without a valid token are counted
for the trail (`on_stranger`), which records them in a bounded way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from strongbox.errors import NoQuorum, Sealed, StrongBoxError, Unauthenticated
from strongbox.rpc.method_rules import Access
from strongbox.rpc.peer_identity import Peer
from strongbox.rpc.request_context import Inbound

OK = "OK"
LEFT = "CANCELLED"
_log = structlog.get_logger("access")


class Observer(Protocol):
    """Metrics, or nothing."""

    def observe(self, method: str, outcome: str, seconds: float) -> None:
        """One call ended with `OK`, `CANCELLED` or an error's reason."""


class Unobserved:
    """No metrics."""

    def observe(self, method: str, outcome: str, seconds: float) -> None:
        """Do nothing."""


@dataclass(slots=True)
class Call:
    """One call under way; `started` in monotonic seconds."""

    access: Access
    started: float
    peer: Peer | None = None
    inbound: Inbound | None = None

    @property
    def request_id(self) -> str:
        """Empty until the call was let in."""
        return self.inbound.request_id if self.inbound is not None else ""


class Reporter:
    """One per server. `on_stranger(source)`: a call without a valid token was refused."""

    def __init__(
        self, observer: Observer | None = None, on_stranger: Callable[[str], None] = lambda _: None
    ) -> None:
        self._observer = observer or Unobserved()
        self._on_stranger = on_stranger

    def answered(self, call: Call) -> None:
        """It succeeded."""
        self._tell(call, OK)

    def left(self, call: Call) -> None:
        """The client cancelled it, or a handler of gRPC's own (health) aborted it."""
        self._tell(call, LEFT)

    def refused(self, call: Call, error: StrongBoxError) -> bool:
        """It was refused; returns whether the gateway may send it again."""
        self._tell(call, error.reason)
        if call.access.token_required and isinstance(error, Unauthenticated | Sealed):
            self._on_stranger(call.inbound.client if call.inbound is not None else "")
        # `NoQuorum` promises that nothing happened. A late one leaves no time for another try.
        early = time.monotonic() - call.started < call.access.limit / 2
        return call.access.retryable and early and isinstance(error, NoQuorum)

    def _tell(self, call: Call, outcome: str) -> None:
        seconds = time.monotonic() - call.started
        self._observer.observe(call.access.method, outcome, seconds)
        # Streams usually end by being cancelled.
        usual = outcome == OK or (outcome == LEFT and not call.access.unary)
        write = _log.debug if call.access.quiet or usual else _log.info
        write(
            "a call ended",
            method=call.access.method,
            outcome=outcome,
            ms=round(seconds * 1000, 2),
            peer=str(call.peer) if call.peer is not None else "",
            client=call.inbound.client if call.inbound is not None else "",
        )
