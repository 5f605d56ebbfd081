"""Defragmenting etcd's members, one at a time in the whole cluster: a member serves nothing meanwhile.

* Replicas take turns by a key. The replica whose turn it is puts the key anew every few seconds; one that has
  not changed for `STALE` seconds is free. It is put nested, which a full etcd takes.
* A turn is a hint (its holder may have been paused). So before each member is defragmented all are read from;
  one that is being defragmented hangs, and is waited for; one that is down is passed over.
* A member that takes longer than the call's deadline goes on with it, and is waited for in the same way.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV
from strongbox.store.etcd.errors import EtcdError, OutcomeUnknown
from strongbox.store.etcd.txn import TxnRequest, TxnResponse

ATTEMPT = 30.0  # seconds for one member, before it is waited for
PROBE = 1.0  # seconds for a read of one member
PATIENCE = 60.0  # seconds for a turn, and for a member that hangs
PAUSE = 0.5  # seconds between two looks
BEAT = 5.0  # seconds between two moves of the key
STALE = 20.0  # seconds without a move
_log = structlog.get_logger(__name__)


class Busy(Exception):
    """Another replica defragments, or a member hangs: later."""


class Upkeep(Protocol):
    """What is asked of etcd (strongbox.store.etcd.client.Etcd)."""

    async def get(self, key: bytes) -> KV | None:
        """The newest value."""

    async def transact(self, request: TxnRequest, *, idempotent: bool = False) -> TxnResponse:
        """Commit."""

    async def probe(self, endpoint: str, *, timeout: float) -> None:
        """Read through one member; `timeout` in seconds."""

    async def defragment(self, endpoint: str, *, timeout: float) -> None:
        """Give one member's free pages back; `timeout` in seconds."""


class Defragmenter:
    """One per process."""

    def __init__(self, etcd: Upkeep, members: Sequence[str]) -> None:
        self._etcd, self._members = etcd, tuple(members)
        self._seen = (0, 0.0)  # the key's revision, and when it was first seen there
        self._held = 0  # the revision at which the key is ours
        self._own = asyncio.Lock()

    async def run(self) -> None:
        """Defragment every member that is there. Raises Busy, EtcdError."""
        async with self._own:
            await self._take_turn()
            beating = asyncio.create_task(self._beat(), name="turn at defragmenting")
            try:
                for member in self._members:
                    await self._one(member)
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                with suppress(EtcdError):
                    await self._move([txn.delete(keyspace.DEFRAGMENTING)])

    async def _one(self, member: str) -> None:
        for other in self._members:
            await self._wait_for(other)
        try:
            await self._etcd.defragment(member, timeout=ATTEMPT)
        except OutcomeUnknown:  # it may still be defragmenting
            await self._wait_for(member)
        except EtcdError as error:
            _log.warning("a member was not defragmented", member=member, why=str(error))

    async def _wait_for(self, member: str) -> None:
        """Until it answers, or is surely down. Raises Busy."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                return await self._etcd.probe(member, timeout=PROBE)
            except OutcomeUnknown:
                await asyncio.sleep(PAUSE)
            except EtcdError:
                return None
        raise Busy(f"{member} does not answer")

    async def _take_turn(self) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            row = await self._etcd.get(keyspace.DEFRAGMENTING)
            revision, now = (row.mod_revision if row else 0), time.monotonic()
            if revision != self._seen[0]:
                self._seen = revision, now
            if not revision or now - self._seen[1] >= STALE:
                self._held = revision
                if await self._move([_claim()]):
                    return
            await asyncio.sleep(PAUSE)
        raise Busy("another replica defragments")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            with suppress(EtcdError):  # if the put landed all the same, later ones fail their compare
                await self._move([_claim()])

    async def _move(self, operations: Sequence[txn.RequestOp]) -> bool:
        """Change the key if it is as this replica left it; whether that was so."""
        request = txn.txn(
            [txn.mod_is(keyspace.DEFRAGMENTING, self._held)], operations, [txn.range_(keyspace.DEFRAGMENTING)]
        )
        reply = await self._etcd.transact(request, idempotent=True)
        if reply.succeeded:
            self._held = reply.header.revision
        return bool(reply.succeeded)


def _claim() -> txn.RequestOp:
    return txn.nested([], [txn.put(keyspace.DEFRAGMENTING, secrets.token_hex(8).encode())])
