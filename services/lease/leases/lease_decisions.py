"""Leases: who may see, renew and end which. Functions of a view and of a `Caller`, which the guard gives.

Rules:
* A lease is `leases/<its policy path>` to policies: `read` to see it, `write` to renew it, `delete` to end
  it. A holder may always do that with its own leases, whatever its policies say.
* An id that is not known has no path: it needs the same capability on `leases/`, the root of all leases. So a
  caller that may not see leases learns nothing from an id it guessed: 403, whether or not it exists.
* Revoking a lease that is revoked or expired succeeds. A revoked lease stays readable for 24 h (a read lease:
  unless etcd is nearly full); reading the secret again makes it active again. An expired read lease is gone.
* Renewing never moves an expiry back, nor beyond the holder's token; a credential's not beyond its role's
  `max_ttl`. A lease that is not active is not renewed.
* Leases of a path need `read` on `leases/<path>`; leases of an accessor that is not the caller's need `read`
  on `leases/`, and each one on its own path. A prefix is revoked with `delete` in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.lease import credential_lease, repository
from services.lease.connections.server_cache import Stored
from strongbox import paths
from strongbox.access.guard import Caller, Guard, earliest
from strongbox.access.token_format import is_accessor
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import InvalidInput, NotFound
from strongbox.lease_records import index, read_lease
from strongbox.lease_records.counters import Tally
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from strongbox.store.space.admission import Effect

ROOT = "leases/"
STATES = frozenset({"ACTIVE", "EXPIRED", "REVOCATION_PENDING", "REVOKED", "ISSUING", "ABANDONED"})
Record = read_lease.Record | credential_lease.Record


class Told(NamedTuple):
    """A lease, and the moment (milliseconds) for which its state is given."""

    record: Record
    now_ms: int

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if isinstance(self.record, read_lease.Record):
            return read_lease.state_of(self.record, self.now_ms)
        return credential_lease.state_of(self.record, self.now_ms)

    @property
    def ttl_s(self) -> int:
        """Whole seconds that are left, rounded."""
        return max(0, (self.record.expires_ms - self.now_ms + 500) // 1000)


class Renewal(NamedTuple):
    """A lease that may be renewed until `expires_ms`, and the connection of its role if it has one."""

    told: Told
    expires_ms: int
    connection: Stored | None


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
            return index.by_path_key(self.path, "")
        return index.by_accessor_key(self.accessor, "")


def require_prefix(text: str) -> str:
    """Return a prefix of policy paths; it may end in a slash. Raises `InvalidPath`."""
    paths.require_canonical(text.removesuffix("/"))
    return text


def is_below(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or below it, by whole segments.

    A prefix that ends in a slash covers only what is below. `dynamic-postgres/app` does not cover `…/app2`.
    """
    return path == prefix or path.startswith(prefix.removesuffix("/") + "/")


def ranges_of(prefix: str) -> list[tuple[bytes, bytes]]:
    """The ranges `[start, end)` that a prefix covers in the index by path, in the order of the keys."""
    path = prefix.removesuffix("/")
    starts = [keyspace.LEASES_BY_PATH + f"{path}/".encode()]
    if path == prefix:
        starts.insert(0, index.by_path_key(path, ""))
    return [(start, keyspace.prefix_end(start)) for start in starts]


def find(view: View, keys: RecordKeys, name: str) -> Record | None:
    """A lease of either kind; `None` for what is absent, forged or no id."""
    if read_lease.is_lease_id(name):
        return read_lease.find(view, keys, name)
    return repository.find_grant(view, keys, name) if credential_lease.is_grant_id(name) else None


def end(view: View, keys: RecordKeys, record: Record, tally: Tally) -> Record:
    """Revoke a read lease; have a credential's lease end soon. The caller settles the tally."""
    if isinstance(record, read_lease.Record):
        return read_lease.revoke(view, keys, record, tally)
    wanted = credential_lease.wanted(record, view.now_ms)
    if wanted != record:
        view.means(Effect.FREES)
        repository.put_grant(view, keys, wanted, record, tally)
    return wanted


class Leases:
    """Decisions about leases."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._lookup = guard, guard.lookup

    def get(self, view: View, caller: Caller, name: str) -> Told:
        """A lease. Raises `PermissionDenied`, `NotFound`."""
        return Told(self._require(view, caller, "read", name), view.now_ms)

    def revoke(self, view: View, caller: Caller, name: str) -> Told:
        """End a lease; a credential's is only marked to end. Raises `PermissionDenied`, `NotFound`."""
        record, tally = self._require(view, caller, "delete", name), Tally()
        ended = end(view, self._lookup.require_keys(), record, tally)
        tally.settle(view)
        return Told(ended, view.now_ms)

    def renewal(self, view: View, caller: Caller, name: str, increment_s: int | None) -> Renewal:
        """Until when a lease may be renewed. Raises `PermissionDenied`, `NotFound`, `InvalidInput`."""
        told = Told(self._require(view, caller, "write", name), view.now_ms)
        if told.state != "ACTIVE":
            raise InvalidInput("the lease is not active any more", state=told.state)
        view.before(told.record.expires_ms)
        token_ms = self._holders_expiry(view, caller, told.record.accessor)
        if isinstance(told.record, read_lease.Record):
            longest_ms = view.now_ms + read_lease.TTL_MS
            asked_ms = view.now_ms + (increment_s or read_lease.TTL_MS // 1000) * 1000
            return Renewal(told, _capped(told, asked_ms, longest_ms, token_ms), None)
        asked_ms = view.now_ms + (increment_s or told.record.ttl_s) * 1000
        expires_ms = _capped(told, asked_ms, told.record.max_expires_ms, token_ms)
        return Renewal(told, expires_ms, self._connection(view, told.record))

    def renew(self, view: View, caller: Caller, name: str, increment_s: int | None, until_ms: int) -> Told:
        """Move the expiry to `until_ms` at most (what PostgreSQL was given). Raises as `renewal`."""
        found, tally = self.renewal(view, caller, name, increment_s), Tally()
        record, keys = found.told.record, self._lookup.require_keys()
        expires_ms = max(record.expires_ms, min(found.expires_ms, until_ms))
        changed: Record
        if isinstance(record, read_lease.Record):
            changed = read_lease.Record()
            changed.CopyFrom(record)
            changed.expires_ms = expires_ms
            read_lease.put(view, keys, changed, record, tally)
        else:
            changed = credential_lease.renewed(record, expires_ms)
            repository.put_grant(view, keys, changed, record, tally)
        tally.settle(view)
        return Told(changed, view.now_ms)

    def told(self, view: View, name: str) -> Told | None:
        """A lease by its id, without a check: the caller was authorized before."""
        record = find(view, self._lookup.require_keys(), name)
        return Told(record, view.now_ms) if record is not None else None

    def require_query(self, caller: Caller, query: Query) -> None:
        """Raise `PermissionDenied` unless the caller may ask this."""
        if query.accessor != caller.accessor:
            caller.require("read", query.policy_path)

    def select(self, view: View, caller: Caller, query: Query, names: Sequence[str]) -> list[Told]:
        """Of these ids, the leases that answer the query and that the caller may see."""
        found = self._found(view, names)
        return [told for told in found if _answers(query, told) and _may(caller, "read", told)]

    def end_below(self, view: View, caller: Caller, prefix: str, names: Sequence[str]) -> list[Told]:
        """Of these ids, end the leases below a prefix that the caller may end; returns them."""
        keys, tally, ended = self._lookup.require_keys(), Tally(), []
        for told in self._found(view, names):
            if told.state == "REVOKED" or not is_below(told.record.path, prefix):
                continue
            if _may(caller, "delete", told):
                ended.append(Told(end(view, keys, told.record, tally), view.now_ms))
        tally.settle(view)
        return ended

    def _found(self, view: View, names: Sequence[str]) -> Iterable[Told]:
        keys = self._lookup.require_keys()
        view.prefetch(*(keyspace.read_lease(name) for name in names if read_lease.is_lease_id(name)))
        view.prefetch(*(keyspace.grant(name) for name in names if credential_lease.is_grant_id(name)))
        for name in names:
            record = find(view, keys, name)
            if record is not None:
                yield Told(record, view.now_ms)

    def _require(self, view: View, caller: Caller, capability: str, name: str) -> Record:
        record = find(view, self._lookup.require_keys(), name)
        if record is None:
            caller.require(capability, ROOT)
            raise NotFound("there is no lease of that id")
        if view.draft is not None:
            view.draft.path = ROOT + record.path
        if record.accessor != caller.accessor:
            caller.require(capability, ROOT + record.path)
        return record

    def _holders_expiry(self, view: View, caller: Caller, accessor: str) -> int:
        """When the holder's token ends (0: never). Raises `InvalidInput` when it is gone."""
        if accessor == caller.accessor:
            return caller.expires_at_ms
        digest = (view.get(keyspace.accessor(accessor)).value or b"").decode("ascii", "replace")
        token = self._lookup.token(view, digest) if digest else None
        inherited = self._guard.ancestors_expiry(view, token) if token is not None else None
        if token is None or inherited is None or token.accessor != accessor:
            raise InvalidInput("the holder's token is gone")
        return earliest(token.expires_ms, inherited)

    def _connection(self, view: View, record: credential_lease.Record) -> Stored:
        found = repository.find_connection(view, self._lookup.require_keys(), record.connection)
        if found is None:
            raise NotFound("the connection of the lease's role does not exist")
        return Stored(found, view.get(repository.connection_key(record.connection)).mod_revision)


def _capped(told: Told, asked_ms: int, longest_ms: int, token_ms: int) -> int:
    return max(told.record.expires_ms, earliest(asked_ms, longest_ms, token_ms))


def _answers(query: Query, told: Told) -> bool:
    if query.state and told.state != query.state:
        return False
    return query.path in ("", told.record.path) and query.accessor in ("", told.record.accessor)


def _may(caller: Caller, capability: str, told: Told) -> bool:
    mine = told.record.accessor == caller.accessor
    return mine or caller.allows(capability, ROOT + told.record.path)
