"""Follow the outbox while the cluster is unsealed: the chain cannot be computed without its key.

While it is sealed the outbox keeps what is recorded; everything is chained after the next unsealing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

import structlog
from google.protobuf.message import DecodeError

from services.audit.following.replica import Replica
from services.audit.keys import AuditKeys
from services.audit.log.segments import Broken
from strongbox.crypto.errors import IntegrityError
from strongbox.errors import StrongBoxError
from strongbox.store.etcd.errors import EtcdError

_RETRY = 0.5  # seconds
_log = structlog.get_logger(__name__)


class SealWatch(Protocol):
    """What following needs to know of the seal service (strongbox.rpc.key_client.KeyClient)."""

    async def wait_unsealed(self) -> None:
        """Return once the cluster is unsealed."""

    def on_sealed(self, callback: Callable[[], None], /) -> object:
        """Have `callback` called at every sealing."""


class Following:
    """Runs a replica from each unsealing to the next sealing."""

    def __init__(self, seal: SealWatch, replica: Replica, keys: AuditKeys) -> None:
        self._seal = seal
        self._replica = replica
        self._keys = keys
        self._task: asyncio.Task[None] | None = None
        seal.on_sealed(self._sealed)

    async def run(self) -> None:
        """For ever; after `Broken` the replica stays as it is, unhealthy, until people have looked."""
        while True:
            await self._seal.wait_unsealed()
            try:
                await self._keys.open()
            except (StrongBoxError, EtcdError, IntegrityError, DecodeError, ValueError) as error:
                _log.warning("the audit keys are not available", why=type(error).__name__)
                await asyncio.sleep(_RETRY)
                continue
            await self._follow()

    async def _follow(self) -> None:
        self._task = asyncio.create_task(self._replica.run(self._keys), name="audit replica")
        try:
            await self._task
        except Broken:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not self._task.cancelled() or _is_stopping():
                raise
        finally:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Broken):
                await self._task

    def _sealed(self) -> None:
        self._keys.drop()
        if self._task is not None:
            self._task.cancel()


def _is_stopping() -> bool:
    """Whether this very task is being cancelled, and not only the one it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
