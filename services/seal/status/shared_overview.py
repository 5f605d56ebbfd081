"""One read of etcd for everybody who asks at about the same time.

Anybody can ask for health, ready and seal status, without a token and as often as they like; each look is one
linearizable transaction over several ranges. So:
* A look begins at most every 100 ms, whoever asks: etcd's work is bounded by the number of replicas.
* A call gets the next look to begin, never one that had begun before: no answer is older than its question.
  It does not wait if no look began in the last 100 ms.
* A failure is shared as well: the calls that waited do not each try again.
"""

from __future__ import annotations

import asyncio
import time

from services.seal import cluster_overview
from services.seal.cluster_overview import Snapshot
from strongbox.store.etcd.client import Etcd

EVERY = 0.1  # seconds from the beginning of one look to the beginning of the next


class Looks:
    """Shared looks of one process."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._next: asyncio.Task[Snapshot] | None = None  # has not begun yet
        self._began = float("-inf")

    async def take(self) -> Snapshot:
        """What etcd holds now. Raises EtcdError, and DecodeError or ValueError for what cannot be read."""
        if self._next is None:
            self._next = asyncio.create_task(self._look(), name="a look at the cluster")
            self._next.add_done_callback(_seen)
        # A call that is cancelled must not cancel the others' look.
        return await asyncio.shield(self._next)

    async def _look(self) -> Snapshot:
        await asyncio.sleep(max(0.0, self._began + EVERY - time.monotonic()))
        self._next, self._began = None, time.monotonic()
        return await cluster_overview.take(self._etcd)


def _seen(look: asyncio.Task[Snapshot]) -> None:
    if not look.cancelled():
        look.exception()  # fetched, so that asyncio does not log it when every caller has left
