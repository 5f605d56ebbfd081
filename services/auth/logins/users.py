"""Users: a name, a password's hash, policies. Pure functions of a view.

* A user is `auth/users/<name>` to policies. Writing replaces the whole user; if no password is given, the old
  one stays.
* The password never leaves this process in clear, and its hash is in no answer; reading says when it was
  changed.
* Deleting or changing a user does not end the user's tokens: revoke those by their accessors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from services.auth import policy_delegation
from services.auth.logins import lockouts
from services.auth.named_records import Named
from strongbox.access.guard import Caller
from strongbox.access.record_reader import Lookup
from strongbox.errors import InvalidInput
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

KIND = "users"
Record = storage.UserRecord


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks for; `token_ttl_s` (seconds) 0: the default."""

    name: str
    policies: tuple[str, ...]
    token_ttl_s: int


class Found(NamedTuple):
    """A user, the refused logins, and the etcd revision at which the user was last written."""

    record: Record
    failures: storage.FailureRecord
    revision: int


def path_of(name: str) -> str:
    """What policies call a user."""
    return f"auth/users/{name}"


class Users:
    """Decisions about users, after the guard's."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.records = Named(lookup, keyspace.USERS, Record, "user")

    def write(self, view: View, caller: Caller, wanted: Wanted, password_hash: str | None) -> Record:
        """Make or replace a user; returns it as written. Raises `InvalidInput`, `PermissionDenied`."""
        known = self.records.writable(view, wanted.name)
        policy_delegation.require_may_give(caller, path_of(wanted.name), wanted.policies)
        if known is not None:
            policy_delegation.require_may_give(caller, path_of(wanted.name), known.policies)
        if password_hash is None and known is None:
            raise InvalidInput("a new user needs a password")
        unchanged = password_hash is None and known is not None
        record = Record(
            name=wanted.name,
            password_hash=known.password_hash if unchanged and known is not None else password_hash or "",
            policies=policy_delegation.spelt(self._lookup, view, wanted.policies),
            token_ttl_s=wanted.token_ttl_s,
            password_changed_ms=known.password_changed_ms if unchanged and known is not None else view.now_ms,
        )
        self.records.put(view, record)
        if not unchanged:  # a new password ends a lock: whoever sets it knows who gets it
            lockouts.clear(view, lockouts.failure_key(KIND, wanted.name))
        return record

    def read(self, view: View, name: str) -> Found:
        """Raises `NotFound`."""
        record = self.records.require(view, name)
        known = lockouts.failures_of(view, lockouts.failure_key(KIND, name))
        return Found(record, known, view.get(self.records.key(name)).mod_revision)

    def delete(self, view: View, name: str) -> None:
        """Remove a user, there or not. Raises `NotFound` when the name exists in other letters."""
        self.records.delete(view, name)
        lockouts.clear(view, lockouts.failure_key(KIND, name))
