"""Rewrap: after a rotation a service brings all that it keeps under the key term in use. A duty.

    <service>/rewrap   RewrapProgress: the term, the key up to which everything is done, how much that is

* The pass begins once the term is in use. From then on nothing new is made under an older term (every
  decision compares the seal state, which names the term), so what the pass has seen is all there is.
* Kinds are visited in the order given, keys in order. Where one kind's envelopes move to another (kv's newest
  version becomes an older one), the one they leave comes first.
* Each transaction compares the fence of the term of office and the progress record, which it moves; each
  record changed compares its own revision in a part of its own. A record that a request has changed meanwhile
  is read and looked at again.
* Progress is written down behind what is done: who takes over does at most one chunk twice, and doing it
  twice changes nothing.
* `REST_MS` after the pass everything is looked through once more: whoever makes records without the guard (a
  duty) may have wrapped a key just before the term came into use, and stored it behind the pass. No call
  takes that long. Only then is the old term given up.
* What does not open is left as it is, and logged: nobody could open it before either.
* The pass takes half of the time at most, so that requests have the other half.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from strongbox.access.records import Forged, open_record, seal_record
from strongbox.clock import Clock
from strongbox.crypto.envelope import WrappedDek
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import Sealed, StrongBoxError
from strongbox.storage.v1 import auth_records_pb2, envelope_pb2
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace, txn
from strongbox.store.client import KV, Etcd, rows_of
from strongbox.store.election import Deposed, Term
from strongbox.store.envelopes import from_record, to_record
from strongbox.store.errors import EtcdError

K = TypeVar("K")
REST_MS = 10_000
PAUSE = 1.0  # seconds between two looks at the term
PAGE = 5000  # keys listed in one go
CHUNK = 64  # records read in one go
MAX_BYTES = 768 << 10  # of one transaction's records; etcd takes 1.5 MiB
_WITHIN = 3.0  # seconds for one call to etcd
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


def renew_records(inner: Inner | None = None) -> Renew:
    """Authenticates records anew; the envelopes inside, if any, are rewrapped too."""

    async def renew(rows: Sequence[KV], keys: Keys) -> dict[bytes, bytes]:
        record_keys = _required(keys)
        bodies = {row.key: body for row in rows if (body := _body(record_keys, row)) is not None}
        stale = {row.key for row in rows if row.key in bodies and _term(row) < record_keys.newest}
        if inner is not None:
            renewed = await _inside(bodies, inner, keys)
            bodies |= renewed
            stale |= renewed.keys()
        return {key: seal_record(record_keys, key, bodies[key]) for key in stale}

    return renew


def renew_messages(inner: Inner) -> Renew:
    """Rewraps the envelopes inside messages that are not authenticated."""

    async def renew(rows: Sequence[KV], keys: Keys) -> dict[bytes, bytes]:
        return await _inside({row.key: row.value for row in rows}, inner, keys)

    return renew


async def _inside(bodies: Mapping[bytes, bytes], inner: Inner, keys: Keys) -> dict[bytes, bytes]:
    """Those bodies that hold an envelope of an older term, with it rewrapped."""
    found = {
        (key, field): envelope for key, body in bodies.items() for field, envelope in inner.take(body).items()
    }
    renewed: dict[bytes, dict[str, envelope_pb2.Envelope]] = {}
    for (key, field), envelope in (await rewrapped(found, keys)).items():
        renewed.setdefault(key, {})[field] = envelope
    return {key: inner.put(bodies[key], envelopes) for key, envelopes in renewed.items()}


async def renew_envelopes(rows: Sequence[KV], keys: Keys) -> dict[bytes, bytes]:
    """Rewraps values that are bare envelopes."""
    parsed = {row.key: envelope_pb2.Envelope.FromString(row.value) for row in rows}
    return {key: new.SerializeToString() for key, new in (await rewrapped(parsed, keys)).items()}


async def rewrapped(
    envelopes: Mapping[K, envelope_pb2.Envelope], keys: Keys
) -> dict[K, envelope_pb2.Envelope]:
    """Those of older terms that open, under the term in use. Raises Sealed, DependencyDown."""
    newest = _required(keys).newest
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


class Rewrap:
    """The duty of one service."""

    def __init__(self, etcd: Etcd, keys: Keys, clock: Clock, service: str, kinds: Sequence[Kind]) -> None:
        self._etcd, self._keys, self._clock = etcd, keys, clock
        self._kinds = tuple(kinds)
        self._key = keyspace.REWRAPS[service]
        self._revision = 0

    async def work(self, term: Term) -> None:
        """Rewrap whenever a newer term is in use, until cancelled, when the term of office is over."""
        while True:
            try:
                await self.one_pass(term)
            except StrongBoxError as error:  # sealed, or seal does not answer: it goes on from where it was
                _log.info("rewrapping waits", reason=error.reason)
            except DecodeError:
                _log.exception("rewrapping met a record that nobody can read")
            except EtcdError as error:
                _log.info("rewrapping waits for etcd", kind=type(error).__name__)
            await asyncio.sleep(PAUSE)

    async def one_pass(self, term: Term) -> bool:
        """Bring everything under the term in use; whether that is so. Raises Deposed, EtcdError, Sealed."""
        newest = _required(self._keys).newest
        row = await self._etcd.get(self._key, deadline=_soon())
        self._revision = row.mod_revision if row else 0
        progress = storage.RewrapProgress.FromString(row.value if row else b"")
        if newest == 1 or (progress.term >= newest and progress.finished):
            if newest == progress.term and not progress.confirmed:
                await self._confirm(term, progress)
            return True
        if progress.term != newest:
            progress = storage.RewrapProgress(term=newest, total=await self._count())
            await self._move(term, progress, {})
            _log.info("rewrapping begins", term=newest, total=progress.total)
        async for keys in self._chunks(progress.position):
            if _required(self._keys).newest != newest:
                return False
            began = time.monotonic()
            await self._chunk(term, progress, keys)
            progress.position = keys[-1]
            progress.done += len(keys)
            await asyncio.sleep(time.monotonic() - began)
        progress.finished, progress.finished_ms = True, self._clock.now_ms()
        progress.total = progress.done
        await self._move(term, progress, {})
        _log.info("rewrapping is done", term=newest, total=progress.total)
        return True

    async def _confirm(self, term: Term, progress: storage.RewrapProgress) -> None:
        """Look through everything once more, when it is time."""
        if self._clock.now_ms() < progress.finished_ms + REST_MS:
            return
        async for keys in self._chunks(b""):
            if _required(self._keys).newest != progress.term:
                return
            began = time.monotonic()
            await self._chunk(term, progress, keys)
            await asyncio.sleep(time.monotonic() - began)
        progress.confirmed = True
        await self._move(term, progress, {})
        _log.info("nothing is under an older term", term=progress.term)

    async def _count(self) -> int:
        # etcd counts a whole range whatever the limit is.
        asked = [txn.range_(k.prefix, keyspace.prefix_end(k.prefix), 1, keys_only=True) for k in self._kinds]
        reply = await self._etcd.transact(txn.txn([], asked), deadline=_soon(), idempotent=True)
        return sum(part.response_range.count for part in reply.responses)

    async def _chunks(self, position: bytes) -> AsyncIterator[list[bytes]]:
        """The keys behind `position`, a few at a time, all of one kind."""
        prefixes = [kind.prefix for kind in self._kinds]
        at = next((i for i, prefix in enumerate(prefixes) if position.startswith(prefix)), 0)
        for prefix in prefixes[at:]:
            start = position + b"\0" if position.startswith(prefix) else prefix
            while True:
                end = keyspace.prefix_end(prefix)
                page = await self._etcd.range(start, end, PAGE, keys_only=True, deadline=_soon())
                keys = [row.key for row in page.rows]
                for first in range(0, len(keys), CHUNK):
                    yield keys[first : first + CHUNK]
                if not page.more:
                    break
                start = keys[-1] + b"\0"

    async def _chunk(self, term: Term, progress: storage.RewrapProgress, keys: Sequence[bytes]) -> None:
        """Do all records from the first to the last of these keys."""
        kind = next(kind for kind in self._kinds if keys[0].startswith(kind.prefix))
        # A range of known ends: etcd's cost follows it, and not all that lies behind.
        reply = await self._etcd.range(keys[0], keys[-1] + b"\0", deadline=_soon())
        rows = reply.rows
        while rows:
            renewed = await kind.renew(rows, self._keys)
            revisions = {row.key: row.mod_revision for row in rows}
            missed: list[bytes] = []
            for some in _portions(renewed):
                missed += await self._move(term, progress, {key: (revisions[key], some[key]) for key in some})
            rows = await self._again(missed)

    async def _again(self, keys: Sequence[bytes]) -> tuple[KV, ...]:
        if not keys:
            return ()
        request = txn.txn([], [txn.range_(key) for key in keys])
        reply = await self._etcd.transact(request, deadline=_soon(), idempotent=True)
        return tuple(row for part in reply.responses for row in rows_of(part.response_range))

    async def _move(
        self, term: Term, progress: storage.RewrapProgress, changes: Mapping[bytes, tuple[int, bytes]]
    ) -> list[bytes]:
        """Write progress and changes, each key where it is at its revision still; the keys that were not.

        Raises Deposed.
        """
        value = progress.SerializeToString(deterministic=True)
        parts = [
            txn.nested([txn.mod_is(key, seen)], [txn.put(key, new)], [])
            for key, (seen, new) in changes.items()
        ]
        request = txn.txn(
            [term.compare(), txn.mod_is(self._key, self._revision)],
            # A plain put at the top: nested ones escape etcd's space quota.
            [txn.put(self._key, value), *parts],
            [txn.range_(self._key), txn.range_(term.key)],
        )
        reply = await self._etcd.transact(request, deadline=_soon(), idempotent=True)
        if reply.succeeded:
            self._revision = reply.header.revision
            told = [part.response_txn.succeeded for part in reply.responses[1:]]
            return [key for key, done in zip(changes, told, strict=True) if not done]
        own, office = (rows_of(part.response_range) for part in reply.responses)
        landed = own and own[0].mod_revision != self._revision and own[0].value == value
        if not landed or not office or office[0].mod_revision != term.fence:
            raise Deposed("rewrapping is another's now")
        # An attempt whose answer was lost: which of its parts took effect is seen by looking again.
        self._revision = own[0].mod_revision
        return list(changes)


def _required(keys: Keys) -> RecordKeys:
    if keys.record_keys is None:
        raise Sealed
    return keys.record_keys


def _term(row: KV) -> int:
    return auth_records_pb2.AuthenticatedRecord.FromString(row.value).term


def _body(keys: RecordKeys, row: KV) -> bytes | None:
    try:
        return open_record(keys, row.key, row.value)
    except Forged as error:
        _log.error("a forged record stays as it is", key=row.key.decode("ascii", "replace"), why=str(error))
        return None


def _portions(renewed: Mapping[bytes, bytes]) -> list[dict[bytes, bytes]]:
    portions: list[dict[bytes, bytes]] = []
    size = MAX_BYTES
    for key, value in renewed.items():
        if size + len(value) > MAX_BYTES:
            portions.append({})
            size = 0
        portions[-1][key] = value
        size += len(value)
    return portions


def _soon() -> float:
    return time.monotonic() + _WITHIN
