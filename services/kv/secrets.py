"""Secrets: what each call decides. Functions of a view and of a `Caller`, which only the guard gives.

Rules beyond those of `versions`:
* A request that changes something is first looked up (`idempotency`): if it was carried out already, it gets
  the first answer and changes nothing.
* "The newest" is fixed to a version when the operation is first decided; a repetition gets the same.
* A destroyed version's envelope is deleted in the transaction that marks it destroyed.
* Removing what is not there succeeds: somebody, or a first attempt, has done it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import structlog

from services.kv import repository, versions
from services.kv.data_keys import Sealing, Stale
from services.kv.idempotency import Asked, Operation, revision_of
from services.kv.versions import Settings
from strongbox.access.guard import Caller
from strongbox.access.record_reader import Lookup
from strongbox.crypto.envelope import Envelope
from strongbox.errors import Internal, NotFound, StrongBoxError
from strongbox.lease_records import read_lease
from strongbox.lease_records.counters import Tally
from strongbox.paths import SecretPath
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store.decisions.view import View
from strongbox.store.envelope_records import from_record, to_record
from strongbox.store.space.admission import Effect

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A value to write; `ttl_s` `None`: it never expires."""

    plaintext: bytes
    cas: int | None
    ttl_s: int | None


class Done(NamedTuple):
    """The result of a change; `revision` 0: that of the transaction."""

    versions: tuple[int, ...]
    at_ms: int
    revision: int = 0


class Found(NamedTuple):
    """A version that may be read: its envelope, and the reader's lease (None: etcd has no space for one)."""

    version: storage.StoredVersion
    envelope: Envelope
    lease: read_lease.Held | None


class Secrets:
    """Decisions about secrets."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._repository = repository.Repository(lookup)

    def write(
        self,
        view: View,
        caller: Caller,
        path: SecretPath,
        wanted: Wanted,
        sealing: Sealing | StrongBoxError,
        asked: Asked,
    ) -> Done:
        """Make a new version. If `sealing` is an error, raise it.

        Raises `VersionMismatch`, `InvalidInput`, `IdempotencyMismatch`.
        """
        view.means(Effect.GROWS)  # even if a larger version goes: etcd keeps its history for a minute
        first = self._first(view, caller, path, asked)
        if first is not None:
            return first
        if isinstance(sealing, StrongBoxError):
            raise copy(sealing)  # the raised one holds frames, which hold `sealing`: a copy makes no circle
        if sealing.term < self._lookup.require_keys().newest:
            view.draft = None  # no refusal to record: it is done again with another key
            raise Stale
        head = self._repository.head(view, path.text)
        change = versions.written(head, wanted.cas, view.now_ms, wanted.ttl_s)
        number = change.head.current_version
        sealed = to_record(sealing.seal(path.text, number))
        operation = self._operation(view, caller, asked, [number])
        self._repository.put_new_version(view, path.text, change, sealed, operation)
        _note(view, number)
        return Done((number,), view.now_ms)

    def version(self, view: View, path: SecretPath, number: int | None) -> storage.StoredVersion:
        """The version that may be read. Raises `NotFound`, `VersionDeleted`, `VersionDestroyed`."""
        head = self.metadata(view, path)
        _note(view, head.current_version if number is None else number)
        found = versions.readable(head, number, view.now_ms)
        if found.expires_ms:
            view.before(found.expires_ms)
        return found

    def envelope(
        self, view: View, path: SecretPath, version: storage.StoredVersion, *, compared: bool = False
    ) -> Envelope:
        """That version's envelope (`compared`: see `repository`). Raises `Internal` when it is not there."""
        record = repository.envelope(view, path.text, version, compared=compared)
        if record is None:
            _log.error("an envelope is missing, or another's", version=version.version)
            raise Internal
        return from_record(record)

    def hold(
        self, view: View, caller: Caller, path: SecretPath, tally: Tally | None = None
    ) -> read_lease.Held | None:
        """The caller's lease of the secret (`tally` and `None`: read_lease). Raises `QuotaExceeded`."""
        keys = self._lookup.require_keys()
        reader = read_lease.Reader(caller.accessor, caller.groups, caller.expires_at_ms)
        return read_lease.hold(view, keys, reader, path.policy_path, tally)

    def metadata(self, view: View, path: SecretPath) -> storage.SecretHead:
        """Everything but the values. Raises `NotFound`."""
        head = self._repository.head(view, path.text)
        if head is None:
            raise NotFound("there is no secret at this path")
        return head

    def delete(
        self, view: View, caller: Caller, path: SecretPath, numbers: Sequence[int], asked: Asked
    ) -> Done:
        """Soft delete; no numbers: the newest. Raises `NotFound`."""
        view.means(Effect.NEUTRAL)
        return self._change(
            view, caller, path, numbers, asked, lambda head, some: versions.deleted(head, some, view.now_ms)
        )

    def undelete(
        self, view: View, caller: Caller, path: SecretPath, numbers: Sequence[int], asked: Asked
    ) -> Done:
        """Take a soft delete back. Raises `NotFound`, `VersionDestroyed`."""
        view.means(Effect.NEUTRAL)
        return self._change(view, caller, path, numbers, asked, versions.undeleted)

    def destroy(
        self, view: View, caller: Caller, path: SecretPath, numbers: Sequence[int], asked: Asked
    ) -> Done:
        """Destroy for good; needs `sudo` as well. Raises `NotFound`."""
        _require_destroying(caller, path)

        def destroyed(head: versions.Head, some: Sequence[int]) -> versions.Change:
            change = versions.destroyed(head, some, view.now_ms)
            # Destroying what is destroyed frees nothing, so it may not use the reserve: it could go on for
            # ever.
            view.means(Effect.FREES if change.gone else Effect.NEUTRAL)
            if change.gone:
                repository.put_purge(view, path.text, change.gone)
            return change

        return self._change(view, caller, path, numbers, asked, destroyed)

    def configure(
        self, view: View, caller: Caller, path: SecretPath, settings: Settings, asked: Asked
    ) -> Done:
        """Change settings; needs `write` as well, and what destroying needs if versions go.

        Raises `NotFound`.
        """
        caller.require("write", path.policy_path)

        def configured(head: versions.Head, _: Sequence[int]) -> versions.Change:
            change = versions.configured(head, settings)
            if settings.custom:  # even if it is no longer than before: the old one stays in etcd's history
                view.means(Effect.GROWS)
            elif change.gone:
                view.means(Effect.FREES)
            if change.gone:
                _require_destroying(caller, path)
                repository.put_purge(view, path.text, change.gone)
                _record_destroyed(view, change.gone)
            return change

        return self._change(view, caller, path, (), asked, configured, newest=False)

    def remove(self, view: View, caller: Caller, path: SecretPath, asked: Asked) -> Done:
        """Remove the secret with all versions; needs what destroying needs as well."""
        _require_destroying(caller, path)
        view.means(Effect.FREES)
        first = self._first(view, caller, path, asked)
        if first is not None:
            return first
        head = self._repository.head(view, path.text)
        if head is not None:
            self._repository.remove(view, path.text, head, self._operation(view, caller, asked, ()))
        return Done((), view.now_ms)

    def _change(
        self,
        view: View,
        caller: Caller,
        path: SecretPath,
        numbers: Sequence[int],
        asked: Asked,
        change: Callable[[versions.Head, Sequence[int]], versions.Change],
        *,
        newest: bool = True,
    ) -> Done:
        """Change an existing head, unless this request did so before. Raises `NotFound`."""
        first = self._first(view, caller, path, asked)
        if first is not None:
            return first
        head = self.metadata(view, path)
        some = tuple(numbers) if numbers or not newest else (head.current_version,)
        _note(view, some[0] if some else 0)
        operation = self._operation(view, caller, asked, some)
        self._repository.put_change(view, path.text, change(head, some), operation)
        return Done(some, view.now_ms)

    def _first(self, view: View, caller: Caller, path: SecretPath, asked: Asked) -> Done | None:
        """The result of an earlier attempt of this request, if there was one."""
        operations, revision = self._repository.operations(view, path.text)
        keys = self._lookup.require_keys()
        known = asked.first(operations, keys, caller.accessor, view.now_ms)
        if known is None:
            return None
        _note(view, known.versions[0] if known.versions else 0)
        return Done(tuple(known.versions), known.at_ms, revision_of(known, revision))

    def _operation(self, view: View, caller: Caller, asked: Asked, numbers: Sequence[int]) -> Operation:
        return asked.operation(self._lookup.require_keys(), caller.accessor, view.now_ms, numbers)


def _require_destroying(caller: Caller, path: SecretPath) -> None:
    """Require what every operation that removes envelopes needs. Raises `PermissionDenied`."""
    caller.require("delete", path.policy_path)
    caller.require("sudo", path.policy_path)


def _record_destroyed(view: View, numbers: Sequence[int]) -> None:
    """Record each version that a change of settings destroys."""
    if view.draft is not None:
        for number in numbers:
            view.record(replace(view.draft, op="DestroySecretVersions", version=number))


def _note(view: View, number: int) -> None:
    """Name the version in the audit record (of several: the first that was named)."""
    if view.draft is not None:
        view.draft.version = number
