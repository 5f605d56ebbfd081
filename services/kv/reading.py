"""Reading a value: proved and audited by one transaction, its key unwrapped meanwhile, opened at the end."""

from __future__ import annotations

from typing import NamedTuple

import structlog

from services.kv.datakeys import PURPOSE, Keys, Unwrapping
from services.kv.secrets import Found, Secrets
from strongbox.access.guard import Guard
from strongbox.crypto import IntegrityError
from strongbox.crypto.envelope import open_value
from strongbox.errors import Internal
from strongbox.paths import SecretPath
from strongbox.rpc.inbound import Inbound
from strongbox.store import keyspace
from strongbox.store.pipeline import Pipeline, Work
from strongbox.store.view import View
from strongbox.trail.outbox import draft_of

_log = structlog.get_logger(__name__)


class Taken(NamedTuple):
    """A version that was read: its audit record is committed, its value not opened yet.

    `head` is the revision at which the secret's head was put, `revision` one at which it stood.
    """

    path: SecretPath
    found: Found
    key: bytes
    head: int
    revision: int

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return len(self.found.envelope.ciphertext)

    def open(self) -> bytes:
        """The value. Raises `Internal` when it does not authenticate."""
        number = self.found.version.version
        try:
            return open_value(self.key, self.found.envelope, PURPOSE, self.path.text, number)
        except IntegrityError:
            _log.error("a stored value does not authenticate", version=number)
            raise Internal from None


class Reading:
    """Reads through the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard, secrets: Secrets, keys: Keys) -> None:
        self._pipeline, self._guard, self._secrets, self._keys = pipeline, guard, secrets, keys

    async def take(self, inbound: Inbound, op: str, path: SecretPath, number: int | None) -> Taken:
        """A version, the newest when `number` is `None`.

        Raises what the guard raises, `NotFound`, `VersionDeleted`, `VersionDestroyed`, `Unavailable`.
        """

        def guarded(view: View) -> tuple[Found, int]:
            caller = self._guard.require(view, inbound, "read", path.policy_path)
            found = self._secrets.read(view, caller, path, number)
            return found, view.get(keyspace.head(path.text)).mod_revision

        draft = draft_of(inbound, op, path.policy_path)
        with Unwrapping(self._keys) as unwrapping:
            work = Work(
                guarded, draft, inbound.deadline, lambda read: unwrapping.start(read[0].envelope.wrapped)
            )
            done = await self._pipeline.submit(work)
            found, head = done.value
            return Taken(path, found, await unwrapping.key(found.envelope.wrapped), head, done.revision)
