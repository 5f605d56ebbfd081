"""How many leases are alive: counters, moved and compared by the transaction that begins or ends a lease.

    counts/<holder>/<x>                of a holder's leases whose id ends in the hex digit x
    counts/all/<group>/<xx>            of a group's leases, in 64 parts by the last two hex digits
    counts/connection/<folded>/<x>     of the credentials that a connection has to end
    counts/role/<folded>               of the credentials made from a database role

Holder and group are those of the token (strongbox.access.token_groups). A lease's record names both, and it
counts there until it ends. A record of an earlier version names neither: it counts for its token alone.

A counter is one key, so two transactions that move it follow each other. A token that reads ten thousand
secrets at once would wait for itself; so its leases are counted in 16 parts, each with a sixteenth of the
quota. Ids are hashes or random: 10,000 leases are 625 a part, more or less 24, and a part takes 1,024. A
group has many holders; in 64 parts they seldom wait for each other.
A counter that reaches zero is deleted.
"""

from __future__ import annotations

from typing import Protocol

from strongbox import paths
from strongbox.access.token_groups import Groups
from strongbox.errors import QuotaExceeded
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

PER_PART = 1024  # leases of a holder in each part: 16,384 in all
PER_GROUP_PART = 2048  # leases of a group in each part: 131,072 in all, some 130 MB
GROUP_PARTS = 64
PARTS = "0123456789abcdef"


class Counted(Protocol):
    """A lease's record, as far as it says where it is counted."""

    @property
    def id(self) -> str: ...
    @property
    def accessor(self) -> str: ...
    @property
    def holder(self) -> str: ...
    @property
    def group(self) -> str: ...


def holder_key(holder: str, lease_id: str) -> bytes:
    """The counter of a holder's leases that this one belongs to."""
    return keyspace.LEASE_COUNTS + f"{holder}/{lease_id[-1:]}".encode()


def group_key(group: str, lease_id: str) -> bytes:
    """The counter of a group's leases that this one belongs to."""
    part = int(lease_id[-2:], 16) % GROUP_PARTS
    return keyspace.LEASE_COUNTS + f"all/{group}/{part:02x}".encode()


def token_keys(groups: Groups, lease_id: str) -> tuple[bytes, ...]:
    """The counters that a token's new lease belongs to."""
    return holder_key(groups.holder, lease_id), group_key(groups.group, lease_id)


def keys_of(record: Counted) -> tuple[bytes, ...]:
    """The counters that a lease is in."""
    if not record.holder:
        return (holder_key(f"token/{record.accessor}", record.id),)
    return token_keys(Groups(record.holder, record.group), record.id)


def connection_key(connection: str, part: str) -> bytes:
    """One of a connection's counters; `part` is an id or a hex digit."""
    return keyspace.LEASE_COUNTS + f"connection/{paths.fold_name(connection)}/{part[-1:]}".encode()


def role_key(role: str) -> bytes:
    """The counter of a database role."""
    return keyspace.LEASE_COUNTS + f"role/{paths.fold_name(role)}".encode()


def count(view: View, key: bytes) -> int:
    """A counter's value; 0 where there is none, or no number."""
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


def require_lease_room(view: View, groups: Groups, lease_id: str, tally: Tally | None = None) -> None:
    """Raise `QuotaExceeded` unless holder and group may have one lease more than `tally` counts already."""
    holder, group = token_keys(groups, lease_id)
    view.prefetch(holder, group)
    for key, limit, whose in (
        (holder, PER_PART, "token or login"), (group, PER_GROUP_PART, "tree, user or role"),
    ):  # fmt: skip
        require_room(view, key, limit - (tally.moved(key) if tally is not None else 0), whose)


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
