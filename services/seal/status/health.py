"""Health, readiness and seal status of one node, as its seal replica sees them.

* `sealed` is this node's: it holds no key. A node that is cut off says what it knows, within 0.6 s.
* Ready: etcd answers, the cluster is unsealed, the node's clock is right, and its kv and auth are there and
  have heard of the unsealing, so that after `ready` the next call is not answered SEALED. In Kubernetes pods
  do not belong to one of our nodes: there any kv and any auth will do.
* What only etcd knows is answered only if etcd was read since the question; otherwise it is absent, never a
  default. That there is a cluster stays known once it was seen.
* A snapshot is shared by everybody who asks within 100 ms (`shared_overview`). Duties are judged by each
  snapshot (`duty_status`); one is taken every other second in any case, and late duties are reported
  (`late_duty_alarm`).
* A node is not ready either while a duty that safety depends on is late.
* The clock is judged only when a *new* `cluster/time` arrives (a watch): an old one says nothing about the
  clock, only about the audit duty, and makes no node unready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from importlib import metadata
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from services.seal.cluster_overview import Replica, Snapshot
from services.seal.custody.held_keys import Custody
from services.seal.status.duty_status import Duties, Standing
from services.seal.status.late_duty_alarm import Alarm
from services.seal.status.shared_overview import Looks
from strongbox.clock import Clock
from strongbox.errors import NoQuorum, NotInitialized, Sealed, StrongBoxError, Unavailable
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import Compacted, EtcdError
from strongbox.store.etcd.watch import Kind, watch

MAX_SKEW_MS = 2000
NEEDED = ("kv", "auth")
MAIN_DUTY = "audit"
_JUDGE_EVERY = 2.0  # seconds between looks at the duties when nobody asks
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
        self,
        etcd: Etcd,
        custody: Custody,
        node: str,
        clock: Clock,
        *,
        has_node: bool = True,
        alarm: Alarm | None = None,
    ) -> None:
        self._etcd, self._custody, self._node, self._clock = etcd, custody, node, clock
        self._has_node = has_node
        self._looks, self.duties, self._alarm = Looks(etcd), Duties(), alarm or Alarm()
        self._last: Snapshot | None = None
        self._skew_ms = 0

    async def health(self) -> pb.GetHealthResponse:
        """Always answers, within 0.6 s; what is not known is absent."""
        fresh = await self._look()
        leader, term = fresh.holders.get(MAIN_DUTY, ("", 0)) if fresh else (None, None)
        return pb.GetHealthResponse(
            initialized=self._is_initialized(fresh),
            sealed=self._is_sealed,
            ready=self._unready(fresh) is None,
            leader=leader,
            term=term,
            node_id=self._node,
            version=VERSION,
            leaders={duty: node for duty, (node, _) in fresh.holders.items() if node} if fresh else {},
            nodes=self._nodes(fresh),
            duties={name: _told(duty, fresh is not None) for name, duty in self.duties.all.items()},
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
        """Raises the error that says why this node is not ready."""
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

    async def judge_duties(self) -> None:
        """Take a snapshot every other second, and report what is late, for ever."""
        while True:
            if await self._look() is not None:
                self._alarm.tell(self.duties, time.monotonic())
            await asyncio.sleep(_JUDGE_EVERY)

    def _is_initialized(self, fresh: Snapshot | None) -> bool | None:
        """None: not known. A cluster that was once seen has not gone away."""
        known = fresh or self._last
        if known is not None and known.config is not None:
            return True
        return None if fresh is None else False

    @property
    def _is_sealed(self) -> bool:
        return self._custody.generation is None

    async def _look(self) -> Snapshot | None:
        """A snapshot begun after this call; None when etcd does not answer in time."""
        started = time.monotonic()
        try:
            seen = await self._looks.take()
        except (EtcdError, DecodeError, ValueError) as error:  # etcd may hold anything
            _log.info("etcd does not answer", kind=type(error).__name__, took=time.monotonic() - started)
            return None
        # Not by revision: that goes back when etcd is restored from a backup.
        if self._last is None or seen.began > self._last.began:
            self._last = seen
            self.duties.judge(seen, time.monotonic())
        return seen

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
        if deaf:
            return Sealed(f"{' and '.join(deaf)} {where}has no keys yet")
        late = self.duties.late_for_safety()
        if late:
            return Unavailable(f"the duty {' and '.join(late)} makes no progress", duties=",".join(late))
        return None

    def _needed(self, seen: Snapshot, name: str) -> list[Mapping[str, Any]]:
        """The presence of this node's replica of a service; where pods have no node, of every replica."""
        if not self._has_node:
            return [told for key, told in seen.sessions.items() if key.startswith(f"{name}/")]
        own = seen.sessions.get(f"{name}/{self._node}")
        return [own] if own is not None else []

    def _nodes(self, fresh: Snapshot | None) -> list[pb.NodeHealth]:
        """Each seal replica; without etcd only the names of the others are known."""
        found, known = [], fresh or self._last
        for replica in known.replicas if known else (_itself(self._node),):
            told = pb.NodeHealth(id=replica.node)
            if replica.node == self._node:
                told.live, told.sealed = True, self._is_sealed
            elif fresh is not None:
                told.live, told.sealed = replica.live, not (replica.live and replica.holds)
            if known is not None:
                told.audit_trouble = _text(known.sessions.get(f"audit/{replica.node}", {}).get("trouble", ""))
            found.append(told)
        return found


def _text(told: object) -> str:
    """A process's text as an answer can hold it: JSON may contain lone surrogates."""
    return str(told).encode("utf-8", "replace").decode()


def _itself(node: str) -> Replica:
    return Replica(node, True, False, False)


def _told(duty: Standing, is_known: bool) -> pb.DutyHealth:
    """A duty for an answer; `is_known`: whether etcd answers, without which holder and late are absent."""
    told = pb.DutyHealth()
    if duty.success_ms:
        moment = Timestamp()
        moment.FromMilliseconds(duty.success_ms)
        told.last_success_at.CopyFrom(moment)
    if is_known:
        told.holder, told.late = duty.holder, duty.is_late
    return told


def _is_unsealed(presence: Mapping[str, Any]) -> bool:
    """Whether a process is unsealed, by its presence; an older version, which does not say, counts so."""
    return bool(presence.get("unsealed", True))
