"""How much one caller may keep alive: live tokens of a group, secret ids of an AppRole. Pure.

    counts/token/<accessor>/<x>        tokens below this one, at any depth, its orphans too
    counts/users/<folded>/<x>          tokens of a user's logins and below; so `approles`, `kubernetes`
    counts/secret-ids/<role id>/<x>    secret ids of an AppRole

Rules:
* Every token is in one group, which its record names: the group of its maker or, if the maker is in none, the
  group named after the maker. A login's token is in the group of the user or role. So a tree of tokens shares
  one limit, however deep it is, and a token gets no more room by making others.
* A token that is made by one with the `root` policy is in no group, since operators make everything from
  there. Its children are in the group named after it: so each such token has a quota, and the root token has
  none.
* A counter moves in the transaction that puts or deletes the record, and is compared by it: no crash comes
  between. Records that were never counted (of an earlier version) are not subtracted either.
* A group is counted in sixteen parts, by the last digit of the digest, each with a sixteenth of the limit: up
  to sixteen of its records share a commit (docs/adr/0060). So a group may be refused a little below its
  limit, but is never allowed more.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongbox import paths
from strongbox.access.guard import Caller
from strongbox.errors import QuotaExceeded
from strongbox.lease_records.counters import PARTS, Tally, count
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

RETRY_AFTER_S = 60  # there is room when something expires, in minutes at best


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many of each may be alive."""

    tokens: int = 16_384  # of one group
    secret_ids: int = 16_384  # of one AppRole


def group_of(caller: Caller) -> str:
    """The group of the tokens that a caller makes; empty: they are not counted."""
    if caller.is_root:
        return ""
    return str(caller.record.quota) or f"token/{caller.accessor}"


def holder_of(caller: Caller) -> str:
    """The holder of the tokens that a caller makes: its own (strongbox.access.token_groups), or empty."""
    return "" if caller.is_root else str(caller.record.holder)


def login_group(kind: str, name: str) -> str:
    """The group of the tokens that logins give; `kind`: `users`, `approles`, `kubernetes`."""
    return f"{kind}/{paths.fold_name(name)}"


def secret_id_group(role_id: str) -> str:
    """The group of an AppRole's secret ids."""
    return f"secret-ids/{role_id}"


def take(view: View, group: str, digest: str, limit: int, what: str) -> None:
    """Count one more `what`. Raises `QuotaExceeded` when `limit` of them live."""
    if not group:
        return
    key = _key(group, digest)
    if count(view, key) >= -(-limit // len(PARTS)):
        raise QuotaExceeded(f"there are as many live {what} as may be", retry_after=str(RETRY_AFTER_S))
    tally = Tally()
    tally.move(key, 1)
    tally.settle(view)


def give_back(tally: Tally, group: str, digest: str) -> None:
    """Count one less; written when `tally` is settled, once for everything that one decision ends."""
    if group:
        tally.move(_key(group, digest), -1)


def _key(group: str, digest: str) -> bytes:
    return keyspace.AUTH_COUNTS + f"{group}/{digest[-1:]}".encode()
