"""Logs why a TLS handshake with another process failed, by what gRPC says of it.

A process whose certificate is refused looks like one that does not answer: gRPC reports UNAVAILABLE for both,
and both are tried again. Only gRPC's text tells them apart; it is searched for known words and never shown.

When the other side refuses our certificate, only its log says so: here we see a connection that ended.
"""

from __future__ import annotations

import time

import structlog

EVERY = 30.0  # seconds between two lines about the same address and reason
_MOST = 256  # addresses and reasons that are remembered
_REASONS = (
    # The first that is found counts. BoringSSL's words, as gRPC 1.85 passes them on.
    ("Hostname Verification Check failed", "its certificate is not for the name that was dialled"),
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet: the clocks differ"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not of the authority that is trusted here"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ("andshake failed", "the TLS handshake failed"),
)
_log = structlog.get_logger(__name__)


def why_refused(details: str) -> str:
    """What was wrong with the other side's certificate, by gRPC's text; "" for failures of another kind."""
    return next((reason for words, reason in _REASONS if words in details), "")


class Told:
    """What was logged when, by address and reason: attempts go on many times a second."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def tell(self, address: str, details: str | None) -> None:
        """Log why `address` was not believed, if that is what `details` says; not more often than `EVERY`."""
        why = why_refused(details or "")
        if not why:
            return
        now = time.monotonic()
        if now - self._last.get((address, why), -EVERY) < EVERY:
            return
        if len(self._last) >= _MOST:
            self._last.clear()
        self._last[address, why] = now
        _log.warning("another process was not believed", address=address, why=why)


told = Told()  # one per process
