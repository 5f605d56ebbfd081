"""What clients were told of database credentials, and whether PostgreSQL lets in whom it should.

A credential logs in from its answer until it expires or until somebody asks for its end; once its lease was
told to be REVOKED, or its time is over, it never does. What is asked without an answer may come to pass or
not, so between the two nothing is promised.

PostgreSQL goes by the wall clock of the machine. If that is set meanwhile (a machine that was suspended; 14 s
were seen), credentials are over sooner or later by as much, which is no fault of anybody.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.robustness.postgres import AWAY, IN, OUT

ROUNDED = 1.0  # seconds: times to live are told in whole ones
_AT_ONCE = 4
_SOONEST = 20  # credentials: who ends one too early ends those first
LATE = 120.0  # seconds: whoever was asked may have been frozen, or have had its clock set ahead


def wall_ahead() -> float:
    """By how many seconds the wall clock is ahead of the monotonic one."""
    return time.time() - time.monotonic()


@dataclass
class Credential:
    """Times are monotonic; `wall_ahead`: by how much the wall clock was ahead when they were told."""

    username: str
    password: str = field(repr=False)
    lease: str
    holds_until: float  # it is let in at least until then, unless its end was asked for
    over_at: float  # it is not let in from then on
    end_asked: bool = False
    ended: bool = False  # REVOKED is acknowledged
    disowned: bool = False  # the revocation of its token is acknowledged
    wall_ahead: float = field(default_factory=wall_ahead)

    def begin_renewal(self, seconds: float) -> None:
        """From now on it may be heard, perhaps late."""
        self.over_at = max(self.over_at, time.monotonic() + seconds + LATE)

    def renewed(self, begun: float, ttl: float) -> None:
        """An answer: it has so many seconds from then on."""
        self.holds_until = max(self.holds_until, begun + ttl - ROUNDED)

    def left(self) -> float:
        """Seconds for which it is let in for certain."""
        return self.holds_until - time.monotonic() - max(0.0, self._set_by())

    def is_over(self) -> bool:
        """Whether its time is over for certain."""
        return time.monotonic() >= self.over_at + max(0.0, -self._set_by())

    def _set_by(self) -> float:
        """Seconds that the wall clock was set ahead by since."""
        return wall_ahead() - self.wall_ahead


class Server(Protocol):
    """What is asked."""

    def login(self, username: str, password: str, /) -> str:
        """`IN`, `OUT` or `AWAY` (tests.robustness.postgres)."""

    def leave_behind(self, username: str, password: str, /) -> None:
        """Have a credential make something that outlives it, if it gets in."""


class Ledger:
    """All of a run's credentials; safe to be used by many threads."""

    def __init__(self, server: Server) -> None:
        self._server, self._lock = server, threading.Lock()
        self.credentials: list[Credential] = []
        self.violations: list[str] = []

    def issued(self, answer: dict[str, Any], begun: float) -> Credential:
        """One that was told to a client who asked at `begun`."""
        lease = answer["lease"]
        ttl, now = float(lease["ttl"]), time.monotonic()
        made = Credential(
            answer["username"], answer["password"], lease["id"], begun + ttl - ROUNDED, now + ttl + ROUNDED
        )
        with self._lock:
            self.credentials.append(made)
        return made

    def holding(self) -> list[Credential]:
        """Those that have to be let in now, those with the least time left before others."""
        with self._lock:
            found = [one for one in self.credentials if not one.end_asked and one.left() > 0]
        return sorted(found, key=lambda one: one.holds_until)[:_SOONEST]

    def leave_behind(self, credential: Credential) -> None:
        """Have it make something that it will not take along."""
        self._server.leave_behind(credential.username, credential.password)

    def check(self, credential: Credential) -> str:
        """Log in; what contradicts an answer that was given before is a violation."""
        ended, over = credential.ended, credential.is_over()
        outcome = self._server.login(credential.username, credential.password)
        # Its end may have been asked for meanwhile; so that is looked at afterwards.
        left = credential.left()
        if outcome == IN and (ended or over):
            self._violated(credential, f"is {_why_over(credential, ended=ended)} and logs in")
        elif outcome == OUT and not credential.end_asked and left > 0:
            self._violated(credential, f"has {left:.0f} s left and does not log in")
        return outcome

    def check_all(self) -> int:
        """Every credential there ever was, now that nothing moves; returns how many were let in."""
        known = list(self.credentials)
        for one in known:
            one.ended = one.ended or one.disowned  # long ago by now
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            outcomes = list(threads.map(self.check, known))
        if AWAY in outcomes:
            self.violations.append(f"credential: of {outcomes.count(AWAY)} PostgreSQL says nothing")
        return outcomes.count(IN)

    def _violated(self, credential: Credential, how: str) -> None:
        with self._lock:
            self.violations.append(f"credential: {credential} {how}")


def _why_over(credential: Credential, *, ended: bool) -> str:
    if ended:
        return "of a revoked token" if credential.disowned else "REVOKED"
    return "expired"
