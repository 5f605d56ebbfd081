"""This replica's record in etcd: whether it holds a key, of which generation, in which session.

* `holds` is written in the transaction that proves the seal state, before a key is used
  (`seal_decisions.complete`), and again when the session was replaced. `seal` knows from it whom to wait for.
* `holds` is cleared after a wipe, and false for a replica that never held any. A process that was killed
  writes nothing; its record stays until its successor holds a key itself or sees the cluster sealed. So peers
  can tell whether an earlier holder of this ordinal could still be alive (`peer_unseal`).
* An ordinal belongs to the node that first wrote a record under it while the cluster was sealed (people were
  about to unseal it, and so approved of it), or that unsealed by shares. While the cluster is unsealed no
  node registers by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from services.seal import repository
from services.seal.custody.held_keys import Custody
from services.seal.repository import SealState
from strongbox.errors import PermissionDenied, StrongBoxError
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.duties.session import Session

_DEADLINE = 1.0  # seconds
_log = structlog.get_logger(__name__)


class Registry:
    """Keeps this replica's record up to date."""

    def __init__(
        self,
        pipeline: Pipeline,
        session: Session,
        custody: Custody,
        node: str,
        ordinal: str,
        address: Callable[[], str],
    ) -> None:
        self._pipeline, self._session, self._custody = pipeline, session, custody
        self._node, self._ordinal, self._address = node, ordinal, address
        self._settled: object = None

    def record(self) -> storage.SealReplica:
        """The record as it should be now."""
        generation = self._custody.generation
        return storage.SealReplica(
            node=self._node,
            ordinal=self._ordinal,
            holds=generation is not None,
            generation=generation or 0,
            lease=self._session.lease_id,
            address=self._address(),
        )

    async def settle(self, state: SealState | None) -> None:
        """Write the record if it was not written yet; `state`: the newest seal state seen. Never raises."""
        record = self.record()
        facts = (state, record.SerializeToString(deterministic=True))
        if facts == self._settled or not record.lease:
            return
        try:
            work = Work(lambda view: say(view, record), None, time.monotonic() + _DEADLINE)
            await self._pipeline.submit(work)
        except StrongBoxError as error:
            _log.info("the replica's record has to wait", why=error.reason)
            return
        self._settled = facts


def register(view: View, record: storage.SealReplica) -> None:
    """Register the ordinal of `record` for its node. Raises PermissionDenied when it is another's."""
    key = keyspace.ordinal(record.ordinal)
    owner = view.get(key).value
    if owner is None:
        view.put(key, record.node.encode())
    elif owner != record.node.encode():
        raise PermissionDenied("this ordinal belongs to another node")


def say(view: View, record: storage.SealReplica) -> None:
    """Bring the stored record in line with `record`, by the rules above."""
    view.prefetch(keyspace.SEAL_STATE, keyspace.seal_replica(record.node), keyspace.ordinal(record.ordinal))
    state = SealState.parse(view.get(keyspace.SEAL_STATE).value)
    known = repository.read_replica(view, record.node)
    if known == record:
        return
    if record.holds:
        # A replica that holds a key of another generation is about to wipe it; it is still waited for.
        if state is not None and not state.is_sealed and state.generation == record.generation:
            repository.put_replica(view, record)
        return
    sealed = state is None or state.is_sealed
    if sealed and view.get(keyspace.ordinal(record.ordinal)).value is None:
        register(view, record)
    if known is None or (known.holds and (sealed or known.lease == record.lease)):
        repository.put_replica(view, record)
