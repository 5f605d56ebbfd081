"""What rewrapping does to records of each kind: which are under an older key term, and their new value.

Nothing is written here (`rewrap_duty` does). What does not open is left as it is, logged by its
etcd key, and counted: nobody could open it before either. The same is done with what names a newer term than
the one in use. Either there is no such term, or this process has not heard of it yet; then another pass
follows, and finds it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from strongbox.access.authenticated_records import Forged, KeyNotHere, open_record, seal_record
from strongbox.crypto.envelope import Envelope, WrappedDek, is_possible
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import Sealed, StrongBoxError
from strongbox.storage.v1 import auth_records_pb2, envelope_pb2
from strongbox.store import keyspace
from strongbox.store.envelope_records import from_record, to_record
from strongbox.store.etcd.client import KV

K = TypeVar("K")
_log = structlog.get_logger(__name__)


class Keys(Protocol):
    """What is asked of the seal service (strongbox.rpc.key_client.KeyClient)."""

    @property
    def record_keys(self) -> RecordKeys | None:
        """`None` while sealed."""

    async def rewrap(self, wrapped: Sequence[WrappedDek]) -> list[WrappedDek | None]:
        """Under the term in use; None: does not open. Raises Sealed, DependencyDown."""


@dataclass(slots=True)
class Renewed:
    """What became of some records: the new values by etcd key, and the keys of those left as they are."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    passed_over: set[bytes] = field(default_factory=set)

    @contextmanager
    def passing_over(self, key: bytes) -> Iterator[None]:
        """Leave the record at `key` if it cannot be opened: it must not keep all others, and a term, back."""
        try:
            yield
        except DecodeError:
            self.leave(key, "nobody can read it")
        except KeyNotHere:
            self.leave(key, "a key term that is not in use")
        except Forged as error:
            self.leave(key, str(error))

    def leave(self, key: bytes, why: str) -> None:
        """Leave the record at `key` as it is, since nobody can open it; logged once."""
        if key not in self.passed_over:
            shown = key.decode("utf-8", "backslashreplace")
            _log.error("a record that does not open stays as it is", key=shown, why=why)
        self.passed_over.add(key)


Renew = Callable[[Sequence[KV], Keys], Awaitable[Renewed]]


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
        for name, envelope in envelopes.items():
            getattr(found, name).CopyFrom(envelope)
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

    `settled(body, revision)`: the body to write in place of one that was put at `revision`, with what depends
    on that revision written out, since the record gets another one.
    """

    async def renew(rows: Sequence[KV], keys: Keys) -> Renewed:
        record_keys, found = required(keys), Renewed()
        bodies: dict[bytes, bytes] = {}
        for row in rows:
            with found.passing_over(row.key):
                bodies[row.key] = open_record(record_keys, row.key, row.value)
        stale = {row.key for row in rows if row.key in bodies and _term(row) < record_keys.newest}
        if inner is not None:
            rewrapped_inside = await _inside(bodies, inner, keys, found)
            bodies |= rewrapped_inside
            stale |= rewrapped_inside.keys()
        revisions = {row.key: row.mod_revision for row in rows}
        for key in stale:
            with found.passing_over(key):
                found.values[key] = seal_record(record_keys, key, settled(bodies[key], revisions[key]))
        return found

    return renew


def renew_messages(inner: Inner) -> Renew:
    """Rewraps the envelopes inside messages that are not authenticated."""

    async def renew(rows: Sequence[KV], keys: Keys) -> Renewed:
        found = Renewed()
        found.values = await _inside({row.key: row.value for row in rows}, inner, keys, found)
        return found

    return renew


async def _inside(
    bodies: Mapping[bytes, bytes], inner: Inner, keys: Keys, found: Renewed
) -> dict[bytes, bytes]:
    """Bodies with envelopes of an older term, these rewrapped; what does not open is noted in `found`."""
    within: dict[tuple[bytes, str], envelope_pb2.Envelope] = {}
    for key, body in bodies.items():
        with found.passing_over(key):
            within |= {(key, field): envelope for field, envelope in inner.take(body).items()}
    renewed: dict[bytes, dict[str, envelope_pb2.Envelope]] = {}
    opened = await rewrapped(within, keys, lambda at: found.leave(at[0], f"its {at[1]}"))
    for (key, name), envelope in opened.items():
        renewed.setdefault(key, {})[name] = envelope
    return {key: inner.put(bodies[key], envelopes) for key, envelopes in renewed.items()}


async def renew_envelopes(rows: Sequence[KV], keys: Keys) -> Renewed:
    """Rewraps values that are bare envelopes."""
    found, parsed = Renewed(), dict[bytes, envelope_pb2.Envelope]()
    for row in rows:
        with found.passing_over(row.key):
            parsed[row.key] = envelope_pb2.Envelope.FromString(row.value)
    renewed = await rewrapped(parsed, keys, lambda key: found.leave(key, "its envelope"))
    found.values = {key: new.SerializeToString() for key, new in renewed.items()}
    return found


async def rewrapped(
    envelopes: Mapping[K, envelope_pb2.Envelope], keys: Keys, left: Callable[[K], None]
) -> dict[K, envelope_pb2.Envelope]:
    """The envelopes of older terms that open, rewrapped under the term in use. Raises Sealed, DependencyDown.

    `left` is called for each that does not open. Seal is not asked about one whose form shows that it is not
    ours: if it has megabytes, seal would refuse the whole request.
    """
    newest = required(keys).newest
    old: dict[K, Envelope] = {}
    for key, record in envelopes.items():
        envelope = from_record(record)
        if envelope.term > newest or not is_possible(envelope.wrapped):
            left(key)
        elif envelope.term < newest:
            old[key] = envelope
    answers = await keys.rewrap([one.wrapped for one in old.values()])
    found = {}
    for (key, envelope), wrapped in zip(old.items(), answers, strict=True):
        if wrapped is None:
            left(key)
        elif wrapped.term >= newest:
            found[key] = to_record(envelope.rewrapped(wrapped))
        else:
            raise StrongBoxError("a seal replica wraps under an older term still")
    return found


def required(keys: Keys) -> RecordKeys:
    """The record keys. Raises Sealed."""
    if keys.record_keys is None:
        raise Sealed
    return keys.record_keys


def _term(row: KV) -> int:
    return auth_records_pb2.AuthenticatedRecord.FromString(row.value).term
