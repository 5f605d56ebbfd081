"""The passwords of connections' users: in etcd only as envelopes, under keys that seal wraps for `lease`.

An envelope is bound to the connection's policy path and the number of the password, so it opens nowhere else.
The key is wrapped before the request is decided, since deciding waits for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from strongbox import paths
from strongbox.crypto.envelope import Dek, WrappedDek, open_value, seal_value
from strongbox.crypto.errors import IntegrityError
from strongbox.errors import Internal
from strongbox.storage.v1 import envelope_pb2, lease_records_pb2
from strongbox.store.envelope_records import from_record, to_record

PURPOSE = "lease"
_log = structlog.get_logger(__name__)


class Keys(Protocol):
    """What is asked of the seal service (strongbox.rpc.key_client.KeyClient)."""

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        """Raises `Sealed`, `DependencyDown`."""

    async def unwrap(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        """Raises `Sealed`, `DependencyDown`, IntegrityError."""


class SealedPassword:
    """One password under a data key of its own; deciding again gives the same envelope."""

    def __init__(self, password: str, dek: Dek, wrapped: WrappedDek) -> None:
        self._password, self._dek, self._wrapped = password, dek, wrapped
        self._made: dict[tuple[str, int], envelope_pb2.Envelope] = {}

    @classmethod
    async def prepare(cls, keys: Keys, password: str) -> SealedPassword:
        """Have a fresh data key wrapped. Raises `Sealed`, `DependencyDown`."""
        dek = Dek.fresh()
        (wrapped,) = await keys.wrap([dek])
        return cls(password, dek, wrapped)

    def envelope(self, name: str, number: int) -> envelope_pb2.Envelope:
        """The password as number `number` of the connection `name`."""
        known = self._made.get((name, number))
        if known is None:
            text = self._password.encode()
            sealed = seal_value(self._dek, self._wrapped, PURPOSE, _place(name), number, text)
            known = self._made[name, number] = to_record(sealed)
        return known


async def open_passwords(keys: Keys, record: lease_records_pb2.ConnectionRecord) -> list[str]:
    """The passwords that may be valid, the likeliest first. Raises `Sealed`, `DependencyDown`, `Internal`."""
    stored = [(record.envelope, record.version)]
    if record.HasField("next_envelope"):
        stored.append((record.next_envelope, record.next_version))
    envelopes = [from_record(envelope) for envelope, _ in stored]
    try:
        opened = await keys.unwrap([envelope.wrapped for envelope in envelopes])
        return [
            open_value(key, envelope, PURPOSE, _place(record.name), number).decode()
            for key, envelope, (_, number) in zip(opened, envelopes, stored, strict=True)
        ]
    except IntegrityError:
        _log.error("the password of a connection does not authenticate", connection=record.name)
        raise Internal from None


def _place(name: str) -> str:
    return f"sys/postgres/connections/{paths.fold_name(name)}"
