"""Health, readiness and seal status of one node, as its seal replica sees them.

* `sealed` is this node's: it holds no key. A node that is cut off says what it knows, within half a second.
* Ready: etcd answers, the cluster is unsealed, the node's clock is right, and its kv and auth are there and
  have heard of the unsealing: whoever is told `ready` is not told SEALED by the next call.
  In Kubernetes a pod is of no node of ours: there any kv and any auth will do.
* The clock is judged only when a *new* `cluster/time` arrives (a watch): an old one says nothing of the
  clock, only of the audit duty, and makes nobody unready.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing
from importlib import metadata

import structlog

from services.seal import snapshot
from services.seal.custody import Custody
from services.seal.snapshot import Snapshot
from strongbox.clock import Clock
from strongbox.errors import NoQuorum, NotInitialized, Sealed, StrongBoxError, Unavailable
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.store import keyspace
from strongbox.store.client import Etcd
from strongbox.store.errors import Compacted, EtcdError
from strongbox.store.watch import Kind, watch

MAX_SKEW_MS = 2000
NEEDED = ("kv", "auth")
MAIN_DUTY = "audit"
_log = structlog.get_logger(__name__)


def _version() -> str:
    try:
        return metadata.version("strongbox-secrets")
    except metadata.PackageNotFoundError:
        return "0.1.0"


VERSION = _version()


class Health:
    """Answers for one node."""

    def __init__(
        self, etcd: Etcd, custody: Custody, node: str, clock: Clock, *, has_node: bool = True
    ) -> None:
        self._etcd, self._custody, self._node, self._clock = etcd, custody, node, clock
        self._has_node = has_node
        self._last: Snapshot | None = None
        self._skew_ms = 0

    async def health(self) -> pb.GetHealthResponse:
        """Always answers; without etcd from what was last seen, with nobody else called alive."""
        fresh = await self._look()
        known = fresh or self._last
        leader, term = known.holders.get(MAIN_DUTY, ("", 0)) if known else ("", 0)
        return pb.GetHealthResponse(
            initialized=known is not None and known.config is not None,
            sealed=self._is_sealed,
            ready=self._unready(fresh) is None,
            leader=leader,
            term=term,
            node_id=self._node,
            version=VERSION,
            leaders={duty: node for duty, (node, _) in known.holders.items() if node} if known else {},
            nodes=self._nodes(fresh, known),
        )

    async def status(self) -> pb.GetSealStatusResponse:
        """How far unsealing is. Raises NoQuorum."""
        seen = await self._look()
        if seen is None:
            raise NoQuorum
        threshold = seen.config.threshold if seen.config else 0
        counts = seen.state is not None and seen.state.is_sealed
        return pb.GetSealStatusResponse(
            initialized=seen.config is not None,
            sealed=self._is_sealed,
            threshold=threshold,
            shares=len(seen.config.share_digests) if seen.config else 0,
            progress=f"{len(seen.attempt.indexes) if counts else 0}/{threshold}",
            nonce=seen.attempt.nonce if counts else "",
        )

    async def require_ready(self) -> pb.GetReadyResponse:
        """Raises what makes this node unready."""
        refusal = self._unready(await self._look())
        if refusal is not None:
            raise refusal
        return pb.GetReadyResponse(ready=True, node_id=self._node)

    async def follow_time(self) -> None:
        """Judge the clock by every new `cluster/time`, for ever."""
        while True:
            try:
                async with aclosing(watch(self._etcd, keyspace.CLUSTER_TIME)) as batches:
                    async for batch in batches:
                        if batch.events[-1].kind is Kind.PUT:
                            self._skew_ms = self._clock.now_ms() - int(batch.events[-1].value)
            except (Compacted, EtcdError, ValueError) as error:
                _log.info("cluster/time is not followed", kind=type(error).__name__)
            await asyncio.sleep(0.5)

    @property
    def _is_sealed(self) -> bool:
        return self._custody.generation is None

    async def _look(self) -> Snapshot | None:
        """A new snapshot; None when etcd does not answer in time."""
        started = time.monotonic()
        try:
            self._last = await snapshot.take(self._etcd)
        except EtcdError as error:
            _log.info("etcd does not answer", kind=type(error).__name__, took=time.monotonic() - started)
            return None
        return self._last

    def _unready(self, seen: Snapshot | None) -> StrongBoxError | None:
        if seen is None:
            return NoQuorum()
        if seen.config is None:
            return NotInitialized()
        # Its own key is enough: records of the others lag behind their sessions for a moment.
        if seen.is_sealed and (self._is_sealed or seen.state is None or seen.state.is_sealed):
            return Sealed()
        if abs(self._skew_ms) > MAX_SKEW_MS:
            return Unavailable(f"the node's clock is {self._skew_ms} ms off", skew_ms=str(self._skew_ms))
        where = "of this node " if self._has_node else ""
        there = {name: self._needed(seen, name) for name in NEEDED}
        away = [name for name, told in there.items() if not told]
        if away:
            return Unavailable(f"{' and '.join(away)} {where}is away")
        deaf = [name for name, told in there.items() if not any(map(_is_unsealed, told))]
        return Sealed(f"{' and '.join(deaf)} {where}has no keys yet") if deaf else None

    def _needed(self, seen: Snapshot, name: str) -> list[bytes]:
        """What this node's replica of a service says of itself; where pods have no node, what any says."""
        if not self._has_node:
            return [told for key, told in seen.sessions.items() if key.startswith(f"{name}/")]
        own = seen.sessions.get(f"{name}/{self._node}")
        return [own] if own is not None else []

    def _nodes(self, fresh: Snapshot | None, known: Snapshot | None) -> list[pb.NodeHealth]:
        found = []
        for replica in known.replicas if known else ():
            mine = replica.node == self._node
            live = mine or (replica.live and fresh is not None)
            sealed = self._is_sealed if mine else not (live and replica.holds)
            trouble = _trouble_of(known.sessions.get(f"audit/{replica.node}", b"")) if known else ""
            found.append(pb.NodeHealth(id=replica.node, live=live, sealed=sealed, audit_trouble=trouble))
        return found


def _trouble_of(presence: bytes) -> str:
    """What a process says is wrong with it; "" when nothing is, or when it is away."""
    return str(json.loads(presence).get("trouble", "")) if presence else ""


def _is_unsealed(presence: bytes) -> bool:
    """What a process says of itself; one of an older version, which says nothing, is believed to be."""
    return bool(json.loads(presence).get("unsealed", True))
