"""How many streams a process serves at once, and for whom. Pure.

A process serves at most 256 streams, 16 of them for the tokens of one group (strongbox.access.token_groups):
a token and all that descend from it, or what the logins of one user gave. So no tenant uses up another's
streams. Where each machine of a role has its own credential (secret id, pod, service account), each
credential has 16 and the role 128: a stolen one can use up only 16.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from strongbox.access.guard import Caller
from strongbox.errors import Overloaded, RateLimited

MOST_STREAMS, MOST_OF_A_ROLE, MOST_OF_ONE = 256, 128, 16
Bounds = Mapping[str, int]  # by the name of a group, how many streams it may hold


def bounds_of(caller: Caller) -> Bounds:
    """The groups that the caller's stream is counted in; child tokens and further logins add no room."""
    groups = caller.groups
    if caller.record.holder:
        return {groups.holder: MOST_OF_ONE, groups.group: MOST_OF_A_ROLE}
    return {groups.group: MOST_OF_ONE}


class Streams:
    """The open streams of one process."""

    def __init__(self) -> None:
        self._all = 0
        self._of: Counter[str] = Counter()

    @contextmanager
    def counted(self, bounds: Bounds) -> Iterator[None]:
        """Count one more stream during the context. Raises `Overloaded`, `RateLimited` for one too many."""
        if self._all >= MOST_STREAMS:
            raise Overloaded("this replica serves as many watches as it may")
        for group, most in bounds.items():
            if self._of[group] >= most:
                raise RateLimited(
                    f"the tokens of one holder or group hold at most {most} watches of one replica"
                )
        self._all += 1
        self._of.update(bounds.keys())
        try:
            yield
        finally:
            self._all -= 1
            self._of.subtract(bounds.keys())
            self._of += Counter()  # forgets those at zero
