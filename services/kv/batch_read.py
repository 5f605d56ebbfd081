"""Many secrets in one call: one decision, in which each has its own permission, audit record and refusal.

Rules:
* 1 to 256 secrets. A fault of one of them (its path, no permission, not there, no lease left) is answered in
  its place; a fault of the caller or the cluster (no token, sealed, no quorum) refuses the whole call.
* All are decided together and proved by one transaction, so each result is true at the answer's revision.
  Token and policies are looked at once, and one audit record holds an entry for each secret.
* Heads say how large values are. Values are read in the order of the requests until they come to 1 MiB; the
  others are answered `TOO_LARGE`, to be asked for again, and their envelopes are not read. So a call reads at
  most 1 MiB of values, whatever it names.
* Read leases are written by the same transaction. Each takes four keys, so some 150 fit. If more have to be
  written, the first ones are, with the audit records of their reads; then everything is decided again, and
  those leases need no writing any more. So a read may be recorded and not answered, but never the reverse;
  and nothing is recorded twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import structlog

from services.kv.data_keys import PURPOSE
from services.kv.read_secret import Reading, Taken
from services.kv.secrets import Found, Secrets
from strongbox.access.guard import Caller, Guard
from strongbox.audit_outbox.outbox import draft_of
from strongbox.crypto.envelope import WrappedDek
from strongbox.errors import (
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    StrongBoxError,
    TooLarge,
)
from strongbox.lease_records import counters, read_lease
from strongbox.lease_records.counters import Tally
from strongbox.paths import SecretPath
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.view import View

MOST = 256  # secrets
MOST_BYTES = 1 << 20  # of all values together
OF_ONE = 512  # bytes of memory for each secret asked for, besides its path, while the call waits
MOST_WRITES = 600  # keys that one transaction writes for leases: etcd takes 1024 operations
ROUNDS = 5  # of deciding: for writing leases, and one more when a data key did not open
OP = "BatchReadSecrets"
_OF_ONE = (InvalidInput, PermissionDenied, NotFound, QuotaExceeded, Internal)
_log = structlog.get_logger(__name__)

Result = Taken | StrongBoxError


class Item(NamedTuple):
    """One secret asked for; `path` is the error when the path or version that was asked for is not valid."""

    path: SecretPath | StrongBoxError
    number: int | None


class Said(NamedTuple):
    """What an audit record says of the read of one secret."""

    version: int
    outcome: str
    reason: str


class Told(NamedTuple):
    """What one decision found; `is_whole`: every lease that is needed is written.

    `recorded`: for each item, what the audit record of this or an earlier decision says of it.
    """

    results: list[Found | StrongBoxError]
    is_whole: bool
    recorded: tuple[Said | None, ...]

    @property
    def wrapped(self) -> list[WrappedDek]:
        """The data keys to unwrap."""
        if not self.is_whole:
            return []
        return [one.envelope.wrapped for one in self.results if isinstance(one, Found)]


class Answer(NamedTuple):
    """A result for each item, and the revision at which they are true."""

    results: list[Result]
    revision: int


class Batch:
    """Reads many secrets in one call."""

    def __init__(self, guard: Guard, secrets: Secrets, reading: Reading) -> None:
        self._guard, self._secrets, self._reading = guard, secrets, reading

    async def read(self, inbound: Inbound, items: Sequence[Item]) -> Answer:
        """A result for each item. Raises as the module says."""
        draft = draft_of(inbound, OP, "secret/")
        compared = False
        recorded: tuple[Said | None, ...] = (None,) * len(items)
        weight = sum(OF_ONE + len(item.path.text) for item in items if isinstance(item.path, SecretPath))
        for _ in range(ROUNDS):
            decision = _Decision(
                self._guard, self._secrets, inbound, items, recorded=recorded, compared=compared
            )
            done, keys = await self._reading.prove(
                inbound, draft, decision.decide, lambda told: told.wrapped, weight
            )
            recorded = done.value.recorded
            if not done.value.is_whole:
                continue
            if all(keys.values()) or compared:
                results = [
                    _taken(item, one, keys) for item, one in zip(items, done.value.results, strict=True)
                ]
                return Answer(results, done.revision)
            compared = True  # a remembered envelope may be under a key term that is retired by now
        raise Overloaded("the leases of these secrets change faster than they can be written; ask for fewer")


class _Decision:
    """One batch, as a function of a view."""

    def __init__(
        self,
        guard: Guard,
        secrets: Secrets,
        inbound: Inbound,
        items: Sequence[Item],
        *,
        recorded: Sequence[Said | None],
        compared: bool,
    ) -> None:
        self._guard, self._secrets, self._inbound = guard, secrets, inbound
        self._items, self._recorded, self._compared = items, recorded, compared

    def decide(self, view: View) -> Told:
        """Raises a fault of the caller or the cluster; a fault of one secret is that secret's result."""
        draft = view.draft
        try:
            caller = self._guard.authenticate(view, self._inbound)
        except PermissionDenied as refusal:  # the token is valid, but a policy of it is missing
            results: list[Found | StrongBoxError] = [refusal.with_traceback(None)] * len(self._items)
            is_whole = True
        else:
            found = self._found(view, caller)
            results, is_whole = self._opened(view, caller, found)
        view.draft = None  # the entries of the secrets stand for the call
        recorded = list(self._recorded)
        for index, (item, result) in enumerate(zip(self._items, results, strict=True)):
            # A secret that waits for its lease is recorded by the decision that reads it.
            waits = isinstance(result, Overloaded)
            if draft is None or not isinstance(item.path, SecretPath) or waits:
                continue
            entry = _entry(draft, item.path, item.number, result)
            said = Said(entry.version, entry.outcome, entry.reason)
            if said != recorded[index]:  # each read is recorded once, however often it is decided
                view.record(entry)
                recorded[index] = said
        return Told(results, is_whole, tuple(recorded))

    def _found(self, view: View, caller: Caller) -> list[storage.StoredVersion | StrongBoxError]:
        """The version of each that may be read, within `MOST_BYTES`; no value is looked at."""
        paths = [item.path for item in self._items if isinstance(item.path, SecretPath)]
        allowed = [path for path in paths if caller.allows("read", path.policy_path)]
        leases = [read_lease.lease_id(caller.accessor, path.policy_path) for path in allowed]
        view.prefetch(
            *(keyspace.head(path.text) for path in allowed),
            *(keyspace.read_lease(name) for name in leases),
            *{key for name in leases for key in counters.token_keys(caller.groups, name)},
        )
        room = MOST_BYTES
        found: list[storage.StoredVersion | StrongBoxError] = []
        for item in self._items:
            try:
                version = self._version(view, caller, item)
            except _OF_ONE as refusal:
                found.append(refusal.with_traceback(None))  # its frames would keep all values in memory
                continue
            room -= version.size
            found.append(version if room >= 0 else TooLarge("the values of one call come to 1 MiB at most"))
        return found

    def _version(self, view: View, caller: Caller, item: Item) -> storage.StoredVersion:
        if isinstance(item.path, StrongBoxError):
            raise item.path
        caller.require("read", item.path.policy_path)
        return self._secrets.version(view, item.path, item.number)

    def _opened(
        self, view: View, caller: Caller, found: Sequence[storage.StoredVersion | StrongBoxError]
    ) -> tuple[list[Found | StrongBoxError], bool]:
        """Their envelopes and leases, and whether all leases that are needed are written."""
        wanted = [
            (item.path, one)
            for item, one in zip(self._items, found, strict=True)
            if isinstance(item.path, SecretPath) and isinstance(one, storage.StoredVersion)
        ]
        view.prefetch(*(keyspace.envelope(path.text, version.version) for path, version in wanted))
        leases = _Leases(view, caller, self._secrets)
        results: list[Found | StrongBoxError] = []
        for item, one in zip(self._items, found, strict=True):
            if isinstance(item.path, StrongBoxError):
                results.append(item.path)
            elif isinstance(one, StrongBoxError):
                results.append(one)
            else:
                results.append(self._open(view, leases, item.path, one))
        leases.settle()
        return results, leases.is_whole

    def _open(
        self, view: View, leases: _Leases, path: SecretPath, version: storage.StoredVersion
    ) -> Found | StrongBoxError:
        try:
            envelope = self._secrets.envelope(view, path, version, compared=self._compared)
            return Found(version, envelope, leases.hold(path))
        except (*_OF_ONE, Overloaded) as refusal:
            return refusal.with_traceback(None)


class _Leases:
    """The caller's leases of the secrets of one batch: one for each path, as many as may be written."""

    def __init__(self, view: View, caller: Caller, secrets: Secrets) -> None:
        self._view, self._caller, self._secrets = view, caller, secrets
        self._tally = Tally()
        self._held: dict[str, read_lease.Held | None] = {}
        self.is_whole = True

    def hold(self, path: SecretPath) -> read_lease.Held | None:
        """The lease; `None`: no space in etcd. Raises `Overloaded` if the next transaction writes it."""
        if path.text not in self._held:
            if len(self._view.footprint.puts) >= MOST_WRITES:
                self.is_whole = False
                raise Overloaded("its lease is written by the next transaction")
            self._held[path.text] = self._secrets.hold(self._view, self._caller, path, self._tally)
        return self._held[path.text]

    def settle(self) -> None:
        """Count the new leases."""
        self._tally.settle(self._view)


def _taken(item: Item, result: Found | StrongBoxError, keys: dict[WrappedDek, bytes]) -> Result:
    if isinstance(result, StrongBoxError) or isinstance(item.path, StrongBoxError):
        return result if isinstance(result, StrongBoxError) else Internal()
    key = keys[result.envelope.wrapped]
    if not key:
        _log.error("a wrapped data key does not authenticate", purpose=PURPOSE)
        return Internal()
    return Taken(item.path, result, key)


def _entry(draft: Draft, path: SecretPath, number: int | None, result: Found | StrongBoxError) -> Draft:
    """The audit record of one secret."""
    if isinstance(result, StrongBoxError):
        told = result.metadata.get("version", "0")
        version = number or (int(told) if told.isdigit() else 0)
        return replace(draft, path=path.policy_path, version=version, outcome="refused", reason=result.reason)
    return replace(draft, path=path.policy_path, version=result.version.version, outcome="ok")
