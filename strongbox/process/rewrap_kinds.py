"""What rewrapping does to records of each kind: which are under an older key term, and their new value.

Nothing is written here (`strongbox.process.rewrap` does). What does not open is left as it is, and logged:
nobody could open it before either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from strongbox.access.records import Forged, open_record, seal_record
from strongbox.crypto.envelope import WrappedDek
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import Sealed, StrongBoxError
from strongbox.storage.v1 import auth_records_pb2, envelope_pb2
from strongbox.store import keyspace
from strongbox.store.client import KV
from strongbox.store.envelopes import from_record, to_record

K = TypeVar("K")
_log = structlog.get_logger(__name__)


class Keys(Protocol):
    """What is asked of the seal service (strongbox.rpc.keys.KeyClient)."""

    @property
    def record_keys(self) -> RecordKeys | None:
        """None: sealed."""

    async def rewrap(self, wrapped: Sequence[WrappedDek]) -> list[WrappedDek | None]:
        """Under the term in use; None: does not open. Raises Sealed, DependencyDown."""


Renew = Callable[[Sequence[KV], Keys], Awaitable[dict[bytes, bytes]]]


class Kind(NamedTuple):
    """Records below a prefix; `renew` gives the new value of those that are not under the term in use."""

    prefix: bytes
    renew: Renew


class Inner:
    """The fields of a stored message that hold envelopes; `keyspace.HOLDERS` lists all such messages."""

    def __init__(self, message: type[Message], *fields: str) -> None:
        self._message, self._fields = message, fields

    def take(self, body: bytes) -> dict[str, envelope_pb2.Envelope]:
        """The envelopes that are there, by field. Raises DecodeError."""
        found: Any = self._message.FromString(body)
        return {field: getattr(found, field) for field in self._fields if found.HasField(field)}

    def put(self, body: bytes, envelopes: Mapping[str, envelope_pb2.Envelope]) -> bytes:
        """The message with these envelopes in the place of those it had."""
        found: Any = self._message.FromString(body)
        for field, envelope in envelopes.items():
            getattr(found, field).CopyFrom(envelope)
        return bytes(found.SerializeToString(deterministic=True))


def authenticated(service: str, inner: Mapping[bytes, Inner] | None = None) -> list[Kind]:
    """The kinds of all authenticated records of a service; `inner`: by prefix, the envelopes inside."""
    within = inner or {}
    return [
        Kind(prefix, renew_records(within.get(prefix))) for prefix in keyspace.AUTHENTICATED.get(service, ())
    ]


def _unchanged(body: bytes, revision: int) -> bytes:
    del revision
    return body


def renew_records(inner: Inner | None = None, settled: Callable[[bytes, int], bytes] = _unchanged) -> Renew:
    """Authenticates records anew; the envelopes inside, if any, are rewrapped too.

    `settled(body, revision)`: what of a body that was put at `revision` has to be written down before the
    record gets another one.
    """

    async def renew(rows: Sequence[KV], keys: Keys) -> dict[bytes, bytes]:
        record_keys = required(keys)
        bodies = {row.key: body for row in rows if (body := _body(record_keys, row)) is not None}
        stale = {row.key for row in rows if row.key in bodies and _term(row) < record_keys.newest}
        if inner is not None:
            rewrapped_inside = await _inside(bodies, inner, keys)
            bodies |= rewrapped_inside
            stale |= rewrapped_inside.keys()
        revisions = {row.key: row.mod_revision for row in rows}
        renewed = {}
        for key in stale:
            with _passing_over(key):
                renewed[key] = seal_record(record_keys, key, settled(bodies[key], revisions[key]))
        return renewed

    return renew


def renew_messages(inner: Inner) -> Renew:
    """Rewraps the envelopes inside messages that are not authenticated."""

    async def renew(rows: Sequence[KV], keys: Keys) -> dict[bytes, bytes]:
        return await _inside({row.key: row.value for row in rows}, inner, keys)

    return renew


async def _inside(bodies: Mapping[bytes, bytes], inner: Inner, keys: Keys) -> dict[bytes, bytes]:
    """Those bodies that hold an envelope of an older term, with it rewrapped."""
    found: dict[tuple[bytes, str], envelope_pb2.Envelope] = {}
    for key, body in bodies.items():
        with _passing_over(key):
            found |= {(key, field): envelope for field, envelope in inner.take(body).items()}
    renewed: dict[bytes, dict[str, envelope_pb2.Envelope]] = {}
    for (key, field), envelope in (await rewrapped(found, keys)).items():
        renewed.setdefault(key, {})[field] = envelope
    return {key: inner.put(bodies[key], envelopes) for key, envelopes in renewed.items()}


async def renew_envelopes(rows: Sequence[KV], keys: Keys) -> dict[bytes, bytes]:
    """Rewraps values that are bare envelopes."""
    parsed: dict[bytes, envelope_pb2.Envelope] = {}
    for row in rows:
        with _passing_over(row.key):
            parsed[row.key] = envelope_pb2.Envelope.FromString(row.value)
    return {key: new.SerializeToString() for key, new in (await rewrapped(parsed, keys)).items()}


async def rewrapped(
    envelopes: Mapping[K, envelope_pb2.Envelope], keys: Keys
) -> dict[K, envelope_pb2.Envelope]:
    """Those of older terms that open, under the term in use. Raises Sealed, DependencyDown."""
    newest = required(keys).newest
    old = {key: from_record(one) for key, one in envelopes.items() if one.term < newest}
    answers = await keys.rewrap([one.wrapped for one in old.values()])
    found = {}
    for (key, envelope), wrapped in zip(old.items(), answers, strict=True):
        if wrapped is None:
            _log.error("an envelope does not open, and stays as it is", dek_id=envelope.dek_id.hex())
        elif wrapped.term >= newest:
            found[key] = to_record(envelope.rewrapped(wrapped))
        else:
            raise StrongBoxError("a seal replica wraps under an older term still")
    return found


def required(keys: Keys) -> RecordKeys:
    """Raises Sealed."""
    if keys.record_keys is None:
        raise Sealed
    return keys.record_keys


@contextmanager
def _passing_over(key: bytes) -> Iterator[None]:
    """One record that is junk must not keep all others, and with them a key term, from being renewed."""
    try:
        yield
    except DecodeError:
        _log.error("a record that nobody can read stays as it is", key=key.decode("ascii", "replace"))


def _term(row: KV) -> int:
    return auth_records_pb2.AuthenticatedRecord.FromString(row.value).term


def _body(keys: RecordKeys, row: KV) -> bytes | None:
    try:
        return open_record(keys, row.key, row.value)
    except Forged as error:
        _log.error("a forged record stays as it is", key=row.key.decode("ascii", "replace"), why=str(error))
        return None
