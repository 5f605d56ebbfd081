"""The replica runs exactly while the cluster is unsealed, and the key goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from services.audit.following.replica import Replica
from services.audit.following.run_while_unsealed import Following
from services.audit.log.segments import Segments
from strongbox.errors import Sealed
from strongbox.store.etcd.client import Etcd
from tests.services.audit.logs import KEYS
from tests.services.audit.producers import Producer, audit_keys, caught_up, text_of


class FakeSeal:
    """A cluster that is sealed and unsealed at will."""

    def __init__(self) -> None:
        self.unsealed = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []

    async def wait_unsealed(self) -> None:
        await self.unsealed.wait()

    def on_sealed(self, callback: Callable[[], None], /) -> None:
        self._callbacks.append(callback)

    def seal(self) -> None:
        self.unsealed.clear()
        for callback in self._callbacks:
            callback()


async def test_the_chain_is_computed_between_unsealing_and_sealing(etcd: Etcd, tmp_path: Path) -> None:
    seal, key, kv = FakeSeal(), audit_keys(), Producer(etcd, "kv", "a" * 16)
    replica = Replica(etcd, Segments(tmp_path / "1"), "node-1")

    following = asyncio.create_task(Following(seal, replica, key).run())
    try:
        revision = await kv.put(2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caught_up(revision, replica), 0.5)
        seal.unsealed.set()
        await caught_up(revision, replica)
        assert key.require().chain == KEYS
        seal.seal()
        with pytest.raises(Sealed):
            key.require()
        revision = await kv.put(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caught_up(revision, replica), 0.5)
        assert text_of(tmp_path / "1").count(b"\n") == 2
        seal.unsealed.set()
        await caught_up(revision, replica)
        assert text_of(tmp_path / "1").count(b"\n") == 3
    finally:
        following.cancel()
        done = await asyncio.gather(following, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
