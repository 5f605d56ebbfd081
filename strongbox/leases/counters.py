"""How many leases live: counters, moved in the transaction that begins or ends a lease, and compared by it.

    counts/token/<accessor>/<x>        of the token's leases whose id ends in the hex digit x
    counts/connection/<folded>/<x>     of the credentials that a connection has to end
    counts/role/<folded>               of the credentials made from a database role

A counter is one key, so two transactions that move it follow each other. A token that reads ten thousand
secrets at once would wait for itself; so its leases are counted in 16 parts, each with a sixteenth of the
quota. Ids are hashes or random: 10,000 leases are 625 a part, more or less 24, and a part takes 1,024.
A counter that reaches zero is deleted.
"""

from __future__ import annotations

from strongbox import paths
from strongbox.errors import QuotaExceeded
from strongbox.store import keyspace
from strongbox.store.view import View

PER_PART = 1024  # leases of a token in each part: 16,384 in all
PARTS = "0123456789abcdef"


def token_key(accessor: str, lease_id: str) -> bytes:
    """The counter of a token's leases that this one belongs to."""
    return keyspace.LEASE_COUNTS + f"token/{accessor}/{lease_id[-1:]}".encode()


def connection_key(connection: str, part: str) -> bytes:
    """One of a connection's counters; `part` is an id or a hex digit."""
    return keyspace.LEASE_COUNTS + f"connection/{paths.fold_name(connection)}/{part[-1:]}".encode()


def role_key(role: str) -> bytes:
    """The counter of a database role."""
    return keyspace.LEASE_COUNTS + f"role/{paths.fold_name(role)}".encode()


def count(view: View, key: bytes) -> int:
    """What a counter says."""
    value = view.get(key).value or b""
    return int(value) if value.isdigit() else 0


def connection_count(view: View, connection: str) -> int:
    """How many credentials a connection has to end."""
    keys = [connection_key(connection, part) for part in PARTS]
    view.prefetch(*keys)
    return sum(count(view, key) for key in keys)


def require_room(view: View, key: bytes, limit: int, whose: str) -> None:
    """Raise `QuotaExceeded` unless one more may be counted."""
    if count(view, key) >= limit:
        raise QuotaExceeded(f"the {whose} has as many live leases as it may", retry_after="10")


class Tally:
    """Moves of counters that one decision makes; each counter is written once, by `settle`."""

    def __init__(self) -> None:
        self._moves: dict[bytes, int] = {}

    def move(self, key: bytes, by: int) -> None:
        """Count `by` more."""
        self._moves[key] = self._moves.get(key, 0) + by

    def moved(self, key: bytes) -> int:
        """How many more are counted so far."""
        return self._moves.get(key, 0)

    def settle(self, view: View) -> None:
        """Write the counters that have moved; none goes below zero."""
        moved = {key: by for key, by in self._moves.items() if by}
        view.prefetch(*moved)
        for key, by in moved.items():
            left = count(view, key) + by
            if left > 0:
                view.put(key, b"%d" % left)
            else:
                view.delete(key)
