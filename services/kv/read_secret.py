"""Reading a value: proved and audited by one transaction, its key unwrapped meanwhile, opened at the end.

A remembered envelope may be wrapped under a key term that has been retired since. Then its key does not open,
and it is read once more, compared with etcd; that is recorded again only if another version is the newest by
then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import structlog

from services.kv.data_keys import PURPOSE, Keys, Unwrapping
from services.kv.secrets import Found, Secrets
from strongbox.access.guard import Guard
from strongbox.audit_outbox.outbox import draft_of
from strongbox.crypto import IntegrityError
from strongbox.crypto.envelope import WrappedDek, open_value
from strongbox.errors import Internal
from strongbox.lease_records import read_lease
from strongbox.paths import SecretPath
from strongbox.rpc.request_context import Inbound
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Outcome, Pipeline, Work
from strongbox.store.decisions.view import View

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Taken(NamedTuple):
    """A version that was read: its audit record is committed, its value not opened yet."""

    path: SecretPath
    found: Found
    key: bytes

    def open(self) -> bytes:
        """The value. Raises `Internal` when it does not authenticate."""
        number = self.found.version.version
        try:
            return open_value(self.key, self.found.envelope, PURPOSE, self.path.text, number)
        except IntegrityError:
            _log.error("a stored value does not authenticate", version=number)
            raise Internal from None


class Read(NamedTuple):
    """One read: the version, and a revision at which it was current."""

    taken: Taken
    revision: int


class Reading:
    """Reads through the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard, secrets: Secrets, keys: Keys) -> None:
        self._pipeline, self._guard = pipeline, guard
        self._secrets, self._keys = secrets, keys

    async def take(self, inbound: Inbound, op: str, path: SecretPath, number: int | None) -> Read:
        """A version, the newest when `number` is `None`.

        Raises what the guard raises, `NotFound`, `VersionDeleted`, `VersionDestroyed`, `Unavailable`.
        """
        draft = draft_of(inbound, op, path.policy_path)
        recorded = 0  # the version that the audit record of an earlier round names
        for compared in (False, True):

            def guarded(view: View, *, compared: bool = compared, recorded: int = recorded) -> Found:
                caller = self._guard.require(view, inbound, "read", path.policy_path)
                name = read_lease.lease_id(caller.accessor, path.policy_path)
                view.prefetch(keyspace.head(path.text), keyspace.read_lease(name))
                version = self._secrets.version(view, path, number)
                envelope = self._secrets.envelope(view, path, version, compared=compared)
                lease = self._secrets.hold(view, caller, path)
                if version.version == recorded:  # a read is recorded once
                    view.draft = None
                return Found(version, envelope, lease)

            done, keys = await self.prove(inbound, draft, guarded, lambda found: [found.envelope.wrapped])
            found, recorded = done.value, done.value.version.version
            key = keys[found.envelope.wrapped]
            if key:
                return Read(Taken(path, found, key), done.revision)
        _log.error("a wrapped data key does not authenticate", dek_id=found.envelope.dek_id.hex())
        raise Internal

    async def prove(
        self,
        inbound: Inbound,
        draft: Draft,
        decide: Callable[[View], T],
        wrapped_of: Callable[[T], list[WrappedDek]],
        weight: int = 0,
    ) -> tuple[Outcome[T], dict[WrappedDek, bytes]]:
        """Decide and prove; meanwhile unwrap the keys that the decision needs, in one request.

        A key is empty when its wrapping does not open. `weight`: as of `Work`.
        """
        with Unwrapping(self._keys) as unwrapping:

            def begin(value: T) -> None:
                unwrapping.start(wrapped_of(value))

            done = await self._pipeline.submit(Work(decide, draft, inbound.deadline, begin, weight=weight))
            keys = {wrapped: await unwrapping.key(wrapped) for wrapped in wrapped_of(done.value)}
        return done, keys
