"""Hearing of new key terms: the keyring in custody follows the one in etcd.

* A watch says at once that it changed; besides, it is read every few seconds.
* A replica that is asked for a term it does not know reads the keyring before it answers. A read begins at
  most every 0.1 s, and serves everybody who asked before it began: forged envelopes must not put load on
  etcd.
* If that read fails, this replica does not know whether there is such a term.
* A keyring that does not open, or whose term in use is older than the one held, is not taken: somebody has
  altered etcd. The keyring held stays in use.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import structlog
from google.protobuf.message import DecodeError

from services.seal.custody.held_keys import Custody
from services.seal.keys.keyring import open_keyring
from strongbox.crypto import IntegrityError
from strongbox.errors import StrongBoxError
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, rows_of
from strongbox.store.etcd.errors import Compacted, EtcdError
from strongbox.store.etcd.watch import watch

READ_EVERY = 3.0  # seconds
_AT_MOST_EVERY = 0.1  # seconds between two reads that somebody asked for
_WITHIN = 0.3  # seconds for one read: callers that wait for it give this replica 0.5 s
_log = structlog.get_logger(__name__)


class Refresher:
    """Keeps the keyring in custody up to date; one per process."""

    def __init__(self, etcd: Etcd, custody: Custody) -> None:
        self._etcd, self._custody = etcd, custody
        self._one_at_a_time = asyncio.Lock()
        self._began = float("-inf")  # the last look
        self._succeeded = False
        self._revision = 0
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._read())

    async def look(self) -> bool:
        """Read the keyring; returns whether the one held is as new as this call. Never raises."""
        asked = time.monotonic()
        async with self._one_at_a_time:
            if self._began < asked:
                await asyncio.sleep(max(0.0, self._began + _AT_MOST_EVERY - time.monotonic()))
                self._began, self._succeeded = time.monotonic(), False  # False also if this is cancelled
                self._succeeded = await self._read_once()
            return self._succeeded

    async def _read_once(self) -> bool:
        try:
            await self._take()
        except (EtcdError, StrongBoxError) as error:
            _log.info("the keyring was not read", kind=type(error).__name__)
        except (IntegrityError, DecodeError):
            _log.error("the keyring in etcd does not open: it was altered")
        else:
            return True
        return False

    async def _take(self) -> None:
        root, generation = self._custody.root()
        request = txn.txn([], [txn.range_(keyspace.SEAL_KEYRING), txn.range_(keyspace.SEAL_RECORD_KEY)])
        reply = await self._etcd.transact(request, deadline=time.monotonic() + _WITHIN, idempotent=True)
        keyring, record_keys = (rows_of(part.response_range) for part in reply.responses)
        if not keyring or not record_keys:
            raise IntegrityError
        if keyring[0].mod_revision == self._revision and self._custody.generation == generation:
            return
        held = self._custody.keyring()
        with root.view() as secret:
            found = open_keyring(
                secret,
                held.cluster_id,
                storage.Keyring.FromString(keyring[0].value),
                storage.RecordKeyring.FromString(record_keys[0].value),
            )
        if found.term < held.term:
            found.wipe()
            raise IntegrityError
        self._custody.renew(found, generation)
        self._revision = keyring[0].mod_revision
        _log.info("the keyring was read", term=found.term, terms=sorted(found.record_keys.by_term))

    async def _read(self) -> None:
        while True:
            self._wake.clear()
            if self._custody.generation is not None:
                await self.look()
            else:
                self._revision = 0
            try:
                async with asyncio.timeout(READ_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _watch(self) -> None:
        while True:
            try:
                async with aclosing(watch(self._etcd, keyspace.SEAL_KEYRING)) as batches:
                    async for _ in batches:
                        self._wake.set()
            except (Compacted, EtcdError) as error:
                _log.info("the watch of the keyring ended", kind=type(error).__name__)
            await asyncio.sleep(0.5)
