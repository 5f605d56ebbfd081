"""Whether any live replica holds a key: by what etcd shows, and by asking those whose record says so.

Sessions lapse while etcd is slow, and none can begin while it is full. A replica that held a key then still
holds it, though etcd shows no live holder. So before the cluster is called sealed, each replica whose record
says that it holds a key is asked itself.
"""

from __future__ import annotations

import asyncio
import enum

from services.seal import cluster_overview
from services.seal.cluster_overview import Replica
from services.seal.custody.held_keys import Custody
from services.seal.peer_calls import Peers
from strongbox.store.etcd.client import Etcd

_ASK_WITHIN = 0.5  # seconds for one replica


class Found(enum.Enum):
    """A replica holds a key, none does, or one that may hold a key does not answer."""

    HELD = 1
    NOBODY = 2
    UNKNOWN = 3


class Holders:
    """Asks on behalf of the replica of `node`."""

    def __init__(self, etcd: Etcd, peers: Peers, custody: Custody, node: str) -> None:
        self._etcd, self._peers, self._custody, self._node = etcd, peers, custody, node

    async def is_shown(self) -> bool:
        """Whether this replica holds a key or, by what etcd shows, another live one. Raises as `look`."""
        return self._custody.generation is not None or (await cluster_overview.take(self._etcd)).is_held

    async def look(self) -> Found:
        """Find out, within about a second. Raises EtcdError, DecodeError, ValueError."""
        if self._custody.generation is not None:
            return Found.HELD
        snapshot = await cluster_overview.take(self._etcd)
        if snapshot.is_held:
            return Found.HELD
        others = [one for one in snapshot.replicas if one.says_held and one.node != self._node]
        told = await asyncio.gather(*map(self._ask, others))
        if Found.HELD in told:
            return Found.HELD
        return Found.UNKNOWN if Found.UNKNOWN in told else Found.NOBODY

    async def _ask(self, replica: Replica) -> Found:
        holds = await self._peers.holds(replica.address, _ASK_WITHIN) if replica.address else None
        return Found.UNKNOWN if holds is None else Found.HELD if holds else Found.NOBODY
