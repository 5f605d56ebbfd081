"""Whether a pod of seal is ready in the sense of Kubernetes: whether the next one may be taken away.

A StatefulSet goes on to the next pod, and a PodDisruptionBudget lets another be evicted, when this one is
ready. So while the cluster is unsealed a replica without the root key is not ready: it still has to get the
key from a peer, and the peers are those that would be taken away. While the cluster is sealed on purpose, or
before init, there is no key to lose and every replica is ready. If the state is not known (etcd does not
answer), a replica is not ready. Nor is it if the state was read longer ago than keys are kept without a
proof: the others may have been unsealed since, and they are those that would be taken away.

A replica that is not ready can still be called: seal's Service publishes its address all the same, and the
gateway uses another check (`Health.set_serving`), so people can unseal it.
"""

from __future__ import annotations

import asyncio
import time

from services.seal.custody.freshness_watch import Vigil
from services.seal.custody.held_keys import WIPE_AFTER_S, Custody
from services.seal.repository import SealState
from strongbox.rpc.server import Health

LOOK_EVERY = 0.25  # seconds; the kubelet asks every 2 s


def is_ready(state: SealState | None, *, is_known: bool, holds: bool) -> bool:
    """`state`: the newest read, None before init; `is_known`: read less than `WIPE_AFTER_S` ago."""
    return holds or (is_known and (state is None or state.is_sealed))


class Readiness:
    """Reports readiness to `Health`; one per process."""

    def __init__(self, custody: Custody, vigil: Vigil, health: Health) -> None:
        self._custody, self._vigil, self._health = custody, vigil, health

    @property
    def is_ready(self) -> bool:
        """Whether it is ready now, by what this process knows; without I/O."""
        is_known = time.monotonic() - self._vigil.read_at < WIPE_AFTER_S
        return is_ready(self._vigil.state, is_known=is_known, holds=self._custody.generation is not None)

    async def run(self) -> None:
        """For ever."""
        while True:
            ready = self.is_ready
            if ready is not self._health.ready:
                await self._health.set_ready(ready)
            await asyncio.sleep(LOOK_EVERY)
