"""Rewrap: after a rotation a service brings all that it keeps under the key term in use. A duty.

    <service>/rewrap   RewrapProgress: the term, the key up to which all is done, how many records that are

* The pass begins once the term is in use. From then on no decision makes anything under an older term (each
  compares the seal state, which names the term), so nothing of that kind appears behind the pass.
* Kinds are visited in the order given, keys in order. Where one kind's envelopes move to another (kv's newest
  version becomes an older one), the one they leave comes first.
* Each transaction compares the fence of the term of office and the progress record, which it moves; each
  record changed compares its own revision in a part of its own. A record that a request has changed meanwhile
  is read and looked at again.
* Progress is written after what is done: a replica that takes over does at most one chunk twice, and doing it
  twice changes nothing.
* `REST_MS` after the pass everything is looked through once more: a duty, which makes records without the
  guard, may have wrapped a key just before the term came into use, and stored it behind the pass. No call
  takes that long. Only then may the old term be retired.
* What does not open stays as it is and stops nothing (`rewrap_kinds`); the record says how much that is.
* It waits while etcd's space is nearly used up: what it replaces is history until that is compacted.
* The pass takes half of the time at most, so that requests have the other half.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog
from google.protobuf.message import DecodeError

from strongbox.clock import Clock
from strongbox.errors import StrongBoxError
from strongbox.rewrap.rewrap_kinds import Keys, Kind, required
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.duties.election import Deposed, Term
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd, rows_of
from strongbox.store.etcd.errors import EtcdError
from strongbox.store.space.admission import Effect, Room, Space, bytes_of

REST_MS = 10_000
PAUSE = 1.0  # seconds between two looks at the term
PAGE = 5000  # keys listed in one go
CHUNK = 64  # records read in one go
MAX_BYTES = 768 << 10  # of one transaction's records; etcd takes 1.5 MiB
_WITHIN = 3.0  # seconds for one call to etcd
_log = structlog.get_logger(__name__)


class Rewrap:
    """The duty of one service."""

    def __init__(self, etcd: Etcd, keys: Keys, clock: Clock, service: str, kinds: Sequence[Kind]) -> None:
        self._etcd, self._keys, self._clock = etcd, keys, clock
        self._kinds = tuple(kinds)
        self._key = keyspace.REWRAPS[service]
        self._revision = 0
        self._space = Space()

    async def work(self, term: Term) -> None:
        """Rewrap whenever a newer term is in use, until cancelled, when the term of office is over."""
        while True:
            try:
                if await self.one_pass(term):
                    term.progress()
            except StrongBoxError as error:  # sealed, or seal does not answer: it goes on from where it was
                _log.info("rewrapping waits", reason=error.reason)
            except EtcdError as error:
                _log.info("rewrapping waits for etcd", kind=type(error).__name__)
            await asyncio.sleep(PAUSE)

    async def one_pass(self, term: Term) -> bool:
        """Bring everything under the term in use; False: it changed. Raises Deposed, EtcdError, Sealed."""
        newest = required(self._keys).newest
        row = await self._read(term)
        self._revision = row.mod_revision if row else 0
        progress = _progress_in(row)
        if newest == 1 or (progress.term >= newest and progress.finished):
            if newest == progress.term and not progress.confirmed:
                await self._confirm(term, progress)
            return True
        if progress.term != newest:
            progress = storage.RewrapProgress(term=newest, total=await self._count())
            await self._move(term, progress, {})
            _log.info("rewrapping begins", term=newest, total=progress.total)
        async for keys in self._chunks(progress.position):
            if required(self._keys).newest != newest:
                return False
            began = time.monotonic()
            left = await self._chunk(term, progress, keys)
            progress.position = keys[-1]
            progress.done += len(keys)
            progress.passed_over += left
            term.progress()
            await asyncio.sleep(time.monotonic() - began)
        progress.finished, progress.finished_ms = True, self._clock.now_ms()
        progress.total = progress.done
        await self._move(term, progress, {})
        _log.info("rewrapping is done", term=newest, total=progress.total, passed_over=progress.passed_over)
        return True

    async def _read(self, term: Term) -> KV | None:
        """The progress so far, in a look that proves the term of office. Raises Deposed."""
        look = txn.txn([term.compare()], [txn.range_(self._key)])
        reply = await self._etcd.transact(look, deadline=_soon(), idempotent=True)
        if not reply.succeeded:
            raise Deposed("rewrapping is another's now")
        rows = rows_of(reply.responses[0].response_range)
        return rows[0] if rows else None

    async def _confirm(self, term: Term, progress: storage.RewrapProgress) -> None:
        """Look through everything once more, when it is time."""
        if self._clock.now_ms() < progress.finished_ms + REST_MS:
            return
        left = 0
        async for keys in self._chunks(b""):
            if required(self._keys).newest != progress.term:
                return
            began = time.monotonic()
            left += await self._chunk(term, progress, keys)
            term.progress()
            await asyncio.sleep(time.monotonic() - began)
        progress.confirmed, progress.passed_over = True, left
        await self._move(term, progress, {})
        _log.info("nothing is under an older term", term=progress.term)

    async def _count(self) -> int:
        # etcd counts a whole range whatever the limit is.
        asked = [txn.range_(k.prefix, keyspace.prefix_end(k.prefix), 1, keys_only=True) for k in self._kinds]
        reply = await self._etcd.transact(txn.txn([], asked), deadline=_soon(), idempotent=True)
        return sum(part.response_range.count for part in reply.responses)

    async def _chunks(self, position: bytes) -> AsyncIterator[list[bytes]]:
        """The keys after `position`, up to `CHUNK` at a time, all of one kind."""
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

    async def _chunk(self, term: Term, progress: storage.RewrapProgress, keys: Sequence[bytes]) -> int:
        """Do all records from the first to the last of these keys; how many stay as they are."""
        await self._wait_for_space()
        kind = next(kind for kind in self._kinds if keys[0].startswith(kind.prefix))
        # A range with an end instead of a limit: etcd's cost follows the range, whatever the limit is.
        reply = await self._etcd.range(keys[0], keys[-1] + b"\0", deadline=_soon())
        rows, left = reply.rows, set[bytes]()
        while rows:
            found = await kind.renew(rows, self._keys)
            left |= found.passed_over
            revisions = {row.key: row.mod_revision for row in rows}
            missed: list[bytes] = []
            for some in _portions(found.values):
                missed += await self._move(term, progress, {key: (revisions[key], some[key]) for key in some})
            rows = await self._again(missed)
        return len(left)

    async def _wait_for_space(self) -> None:
        while (row := await self._etcd.get(keyspace.ROOM, deadline=_soon())) is not None:
            room = Room.parse(row.key, row.value)
            self._space.quota = room.quota
            if not self._space.refuses(Effect.NEUTRAL, room):
                return
            await asyncio.sleep(PAUSE)

    async def _again(self, keys: Sequence[bytes]) -> tuple[KV, ...]:
        if not keys:
            return ()
        request = txn.txn([], [txn.range_(key) for key in keys])
        reply = await self._etcd.transact(request, deadline=_soon(), idempotent=True)
        return tuple(row for part in reply.responses for row in rows_of(part.response_range))

    async def _move(
        self, term: Term, progress: storage.RewrapProgress, changes: Mapping[bytes, tuple[int, bytes]]
    ) -> list[bytes]:
        """Write progress and those changes whose keys are still at their revisions; returns the other keys.

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
            self._space.put(self._revision, bytes_of({key: new for key, (_, new) in changes.items()}))
            told = [part.response_txn.succeeded for part in reply.responses[1:]]
            return [key for key, done in zip(changes, told, strict=True) if not done]
        own, office = (rows_of(part.response_range) for part in reply.responses)
        landed = own and own[0].mod_revision != self._revision and own[0].value == value
        if not landed or not office or office[0].mod_revision != term.fence:
            raise Deposed("rewrapping is another's now")
        # An attempt whose answer was lost: which of its parts took effect is seen by looking again.
        self._revision = own[0].mod_revision
        return list(changes)


def _progress_in(row: KV | None) -> storage.RewrapProgress:
    """The stored progress; that of a pass not begun where there is none, or none that can be parsed."""
    try:
        return storage.RewrapProgress.FromString(row.value if row else b"")
    except DecodeError:
        _log.error("nobody can read how far rewrapping is; it begins anew")
        return storage.RewrapProgress()


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
