"""Watching over the seal state: proofs for custody, wiping when it is time, and what follows from a wipe.

* A linearizable read every 0.5 s is the proof; a watch of `seal/state` makes the next read come at once. A
  read that failed is repeated without a pause: etcd's elections take longer than what is left of a proof. A
  late read is not waited for: the next is sent beside it, and the first answer counts. So an etcd that takes
  two seconds for each answer still proves every half second.
* The wipe 10 s after the last proof does not wait for a read to fail: it has a timer of its own.
* After a wipe the replica writes that into its record in etcd (`seal` waits for that), and the process is
  replaced.
* Each state read leads to two things: the replica's record is kept true, and a cluster in which nobody holds
  a key any more is called sealed (`seal_when_unheld`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import structlog

from services.seal.custody.held_keys import Custody
from services.seal.custody.replica_record import Registry
from services.seal.custody.seal_confirmations import Revisions
from services.seal.custody.seal_when_unheld import SealWhenUnheld
from services.seal.repository import SealState
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import Compacted, EtcdError
from strongbox.store.etcd.watch import watch

READ_EVERY = 0.5  # seconds
_READ_WITHIN = 3.0  # seconds for one read, all its attempts together
_FAILED_PAUSE = 0.05  # seconds after a read that failed
_log = structlog.get_logger(__name__)


class Vigil:
    """Watches the seal state; one per process. `on_wiped` is called after a wipe."""

    def __init__(
        self,
        etcd: Etcd,
        custody: Custody,
        registry: Registry,
        unheld: SealWhenUnheld,
        on_wiped: Callable[[], Awaitable[None]],
    ) -> None:
        self._etcd, self._custody, self._registry = etcd, custody, registry
        self._unheld, self._on_wiped = unheld, on_wiped
        self._wake, self._is_read = asyncio.Event(), asyncio.Event()
        self._readings: set[asyncio.Task[bool]] = set()
        self.revisions = Revisions()
        self.state: SealState | None = None
        self.read_at = float("-inf")  # when `state` was asked for, in monotonic seconds
        self.seen = asyncio.Event()

    async def run(self) -> None:
        """Run its five tasks, for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (self._read, self._watch, self._expire, self._after_wipe, self._follow):
                    tasks.create_task(work())
        finally:
            for reading in self._readings:
                reading.cancel()

    def look_now(self) -> None:
        """Have the seal state read at once."""
        self._wake.set()

    async def _read(self) -> None:
        while True:
            asked = time.monotonic()
            self._wake.clear()
            reading = asyncio.create_task(self._ask(asked), name="the seal state")
            self._readings.add(reading)
            reading.add_done_callback(self._readings.discard)
            await asyncio.wait({reading}, timeout=READ_EVERY)
            if reading.done() and not reading.result():
                await asyncio.sleep(_FAILED_PAUSE)
                continue
            await _happens(self._wake, READ_EVERY - (time.monotonic() - asked))

    async def _ask(self, asked: float) -> bool:
        """Whether etcd answered. A state that was asked for before the one known now is dropped."""
        try:
            found = await self._etcd.range(keyspace.SEAL_STATE, deadline=asked + _READ_WITHIN)
            state = SealState.parse(found.rows[0].value if found.rows else None)
        except (EtcdError, ValueError) as error:
            _log.info("the seal state is not known", kind=type(error).__name__)
            return False
        if asked > self.read_at:
            self.state, self.read_at = state, asked
            self.revisions.note(asked, found.revision)
            self._custody.prove(state, asked)
            self.seen.set()
            self._is_read.set()
        return True

    async def _follow(self) -> None:
        """Act on each state that was read; this may take a second, and no proof has to wait for it."""
        while True:
            await self._is_read.wait()
            self._is_read.clear()
            await self._registry.settle(self.state)
            await self._unheld.look(self.state)

    async def _watch(self) -> None:
        while True:
            try:
                async with aclosing(watch(self._etcd, keyspace.SEAL_STATE)) as batches:
                    async for _ in batches:
                        self.look_now()
            except (Compacted, EtcdError) as error:
                _log.info("the watch of the seal state ended", kind=type(error).__name__)
            await asyncio.sleep(READ_EVERY)

    async def _expire(self) -> None:
        while True:
            left = self._custody.left()
            await asyncio.sleep(READ_EVERY if left is None else max(0.01, min(left, READ_EVERY)))
            self._custody.expire()

    async def _after_wipe(self) -> None:
        while True:
            await self._custody.wiped.wait()
            seen = self.state.encode().decode() if self.state else "unknown"
            _log.warning("the keys are wiped", state=seen)
            await self._registry.settle(self.state)
            await self._on_wiped()


async def _happens(event: asyncio.Event, within: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, within)):
            await event.wait()
    except TimeoutError:
        return
