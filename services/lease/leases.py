"""Leases: who may see and end which. Functions of a view and of a `Caller`, whom only the guard hands out.

Rules:
* A lease is `leases/<its policy path>` to policies: `read` to see it, `delete` to end it. Its holder may
  always see and end his own, whatever his policies say.
* An id that is not known has no path: it needs the same capability on `leases/`, the root of all leases.
  So who may not see all leases learns nothing from an id he guessed: 403, there or not.
* Revoking the revoked, or the expired, succeeds. A revoked lease stays readable for 24 h; reading the secret
  again makes it active anew.
* Leases of a path need `read` on `leases/<path>`; leases of an accessor that is not the caller's need `read`
  on `leases/`, and each one on its own path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from strongbox import paths
from strongbox.access.guard import Caller
from strongbox.access.lookup import Lookup
from strongbox.access.tokens import is_accessor
from strongbox.errors import InvalidInput, NotFound
from strongbox.leases import read_lease
from strongbox.leases.read_lease import Record
from strongbox.store import keyspace
from strongbox.store.view import View

ROOT = "leases/"
STATES = frozenset({"ACTIVE", "EXPIRED", "REVOCATION_PENDING", "REVOKED"})


class Told(NamedTuple):
    """A lease, and the moment (milliseconds) of which its state is told."""

    record: Record
    now_ms: int

    @property
    def state(self) -> str:
        """`ACTIVE`, `EXPIRED` or `REVOKED`."""
        return read_lease.state_of(self.record, self.now_ms)


@dataclass(frozen=True, slots=True)
class Query:
    """Leases of a policy path or of an accessor: one of the two; `state` empty: any."""

    path: str
    accessor: str
    state: str

    @classmethod
    def parse(cls, path: str, accessor: str, state: str) -> Query:
        """Raises `InvalidInput`."""
        if bool(path) == bool(accessor):
            raise InvalidInput("leases are listed by path or by accessor: one of the two")
        if path:
            paths.require_canonical(path)
        elif not is_accessor(accessor):
            raise InvalidInput("accessor is not one")
        if state and state not in STATES:
            raise InvalidInput(f"state is one of {' '.join(sorted(STATES))}")
        return cls(path, accessor, state)

    @property
    def policy_path(self) -> str:
        """What policies call the listing."""
        return ROOT + self.path

    @property
    def prefix(self) -> bytes:
        """The part of the index that holds its ids."""
        if self.path:
            return read_lease.by_path_key(self.path, "")
        return read_lease.by_accessor_key(self.accessor, "")


class Leases:
    """Decisions about leases."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def get(self, view: View, caller: Caller, name: str) -> Told:
        """A lease. Raises `PermissionDenied`, `NotFound`."""
        return Told(self._require(view, caller, "read", name), view.now_ms)

    def revoke(self, view: View, caller: Caller, name: str) -> Told:
        """End a lease. Raises `PermissionDenied`, `NotFound`."""
        record = self._require(view, caller, "delete", name)
        return Told(read_lease.revoke(view, self._lookup.require_keys(), record), view.now_ms)

    def require_query(self, caller: Caller, query: Query) -> None:
        """Raise `PermissionDenied` unless the caller may ask this."""
        if query.accessor != caller.accessor:
            caller.require("read", query.policy_path)

    def select(self, view: View, caller: Caller, query: Query, names: Sequence[str]) -> list[Told]:
        """Of these ids, the leases that answer the query and that the caller may see."""
        view.prefetch(*(keyspace.read_lease(name) for name in names))
        return [told for told in self._found(view, names) if _answers(query, told) and _may(caller, told)]

    def _found(self, view: View, names: Sequence[str]) -> Iterable[Told]:
        keys = self._lookup.require_keys()
        for name in names:
            record = read_lease.find(view, keys, name)
            if record is not None:
                yield Told(record, view.now_ms)

    def _require(self, view: View, caller: Caller, capability: str, name: str) -> Record:
        keys = self._lookup.require_keys()
        record = read_lease.find(view, keys, name) if read_lease.is_lease_id(name) else None
        if record is None:
            caller.require(capability, ROOT)
            raise NotFound("there is no lease of that id")
        if view.draft is not None:
            view.draft.path = ROOT + record.path
        if record.accessor != caller.accessor:
            caller.require(capability, ROOT + record.path)
        return record


def _answers(query: Query, told: Told) -> bool:
    if query.state and told.state != query.state:
        return False
    return query.path in ("", told.record.path) and query.accessor in ("", told.record.accessor)


def _may(caller: Caller, told: Told) -> bool:
    return told.record.accessor == caller.accessor or caller.allows("read", ROOT + told.record.path)
