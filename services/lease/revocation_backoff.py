"""When the next attempt is made to take a credential away, after some that failed: 10 s, 20 s, 40 s …

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts, in milliseconds."""

    first_ms: int = 10_000
    cap_ms: int = 40_000

    def after(self, attempts: int) -> int:
        """The pause after so many attempts (1 and more): doubled each time, up to the cap."""
        return min(self.first_ms << min(attempts - 1, 32), self.cap_ms)
