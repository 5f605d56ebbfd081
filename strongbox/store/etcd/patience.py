"""How long an attempt may take: short, unless etcd as a whole is slow.

An attempt is short so that a member which hangs costs little. But a disk that takes half a second for each
commit makes every member late: then no attempt of 0.4 s is ever answered, and each one is a proposal more for
the disk. So within a call the attempts double whenever every member was late in turn. The first attempt of
the next call has twice the time that the answer took; each quicker answer shortens it by a fifth at most.
A call that ended before any answer came makes the next one's attempts longer, until one is answered.
Reads wait for no disk and are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator

MOST = 2.0  # seconds: the most that an attempt at a member that hangs may cost
MOST_UNANSWERED = 1.0  # seconds after a call without an answer: etcd may be slow or gone
_FACTOR = 2.0  # of what an answer took
_KEPT = 0.8  # of what was learned, after a quicker answer


class Patience:
    """One per client. `least` is the attempt of a healthy etcd, `members` how many there are."""

    def __init__(self, least: float, members: int) -> None:
        self._least, self._members = least, members
        self._learned = {True: least, False: least}

    def attempt(self, *, reads: bool) -> float:
        """Seconds for the first attempt of a call."""
        return self._learned[reads]

    def attempts(self, *, reads: bool) -> Iterator[float]:
        """Seconds for each attempt of a call that is late again and again."""
        seconds = self.attempt(reads=reads)
        while True:
            for _ in range(self._members):
                yield seconds
            seconds = max(seconds, min(MOST, 2 * seconds))

    def answered(self, took: float, *, reads: bool) -> None:
        """An attempt was answered after so many seconds."""
        learned = max(self._least, _FACTOR * took, _KEPT * self._learned[reads])
        self._learned[reads] = max(self._least, min(MOST, learned))

    def unanswered(self, *, reads: bool) -> None:
        """A call ended without an answer, and its last attempt was late."""
        longer = min(MOST_UNANSWERED, 2 * self._learned[reads])
        self._learned[reads] = max(self._learned[reads], longer)
