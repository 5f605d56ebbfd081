"""Records that have a name (users, AppRoles, Kubernetes roles): found, written and deleted through a view.

Names are compared folded: `Bob` cannot be made while `bob` exists. A record is found by its own spelling
only: `Bob` is nobody, so it evades neither a rule nor a lockout of `bob`.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from strongbox import paths
from strongbox.access.authenticated_records import seal_record
from strongbox.access.record_reader import Lookup
from strongbox.errors import InvalidInput, NotFound, TooLarge
from strongbox.store.decisions.view import View

R = TypeVar("R")
MAX_RECORD_BYTES = 64 << 10


class Named(Generic[R]):
    """Authenticated records of one kind below one prefix; `kind` is a message with a `name`."""

    def __init__(self, lookup: Lookup, prefix: bytes, kind: type[R], what: str) -> None:
        self.prefix = prefix
        self._lookup, self._kind, self._what = lookup, kind, what

    def key(self, name: str) -> bytes:
        """The etcd key for this name, the same for every spelling."""
        return self.prefix + paths.fold_name(name).encode()

    def find(self, view: View, name: str) -> R | None:
        """The record of exactly this name, not to be changed."""
        found: Any = self._lookup.record(view, self.key(name), self._kind)
        return found if found is not None and found.name == name else None

    def require(self, view: View, name: str) -> R:
        """As `find`. Raises `NotFound`."""
        found = self.find(view, name)
        if found is None:
            raise NotFound(f"there is no {self._what} of that name")
        return found

    def writable(self, view: View, name: str) -> R | None:
        """The record that a write replaces, if any. Raises `InvalidInput` when it exists in other letters."""
        found: Any = self._lookup.record(view, self.key(name), self._kind)
        if found is not None and found.name != name:
            raise InvalidInput(f"a {self._what} of this name exists in other letters", name=found.name)
        return None if found is None else found

    def put(self, view: View, record: Any) -> None:
        """Write a record under its own name. Raises `TooLarge`."""
        body = record.SerializeToString(deterministic=True)
        if len(body) > MAX_RECORD_BYTES:
            raise TooLarge(f"a {self._what} has at most {MAX_RECORD_BYTES} bytes")
        key = self.key(record.name)
        view.put(key, seal_record(self._lookup.require_keys(), key, body))

    def delete(self, view: View, name: str) -> R | None:
        """Remove it, there or not; returns what was there. Raises `NotFound` when it is in other letters."""
        found: Any = self._lookup.record(view, self.key(name), self._kind)
        if found is not None and found.name != name:
            raise NotFound(f"there is no {self._what} of that name")
        view.delete(self.key(name))
        return None if found is None else found
