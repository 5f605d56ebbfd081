"""Signing checkpoints and putting the newest into etcd, by the duty at an interval, and whenever one is asked
for.

Before signing, a replica compares its own log with the newest checkpoint in etcd: it signs nothing that does
not contain the one before. If two sign at once, the compare of the one key lets only one through. So only a
replica that ignores what it has just read could sign a second history under our key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from services.audit.following.replica import Replica
from services.audit.following.start_position import read_checkpoint
from services.audit.keys import AuditKeys
from strongbox.audit_log.checkpoint import Checkpoint, sign
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import Unavailable

_TRIES = 4
_log = structlog.get_logger(__name__)


class Forked(Exception):
    """This replica's log does not contain what was signed."""


class Publisher:
    """One replica's checkpoints."""

    def __init__(self, etcd: Etcd, replica: Replica, keys: AuditKeys) -> None:
        self._etcd, self._replica, self._keys = etcd, replica, keys

    async def publish(
        self, size: int, deadline: float, fence: Sequence[txn.Compare] = ()
    ) -> tuple[str, Checkpoint]:
        """The newest checkpoint, as note and parsed, of at least `size` entries, which this replica has.

        Raises Sealed, EtcdError, OSError, Forked.
        """
        keys = self._keys.require()
        for _ in range(_TRIES):
            row = await self._etcd.get(keyspace.AUDIT_CHECKPOINT, deadline=deadline)
            known = read_checkpoint(row.value, keys) if row else None
            if known:
                await asyncio.to_thread(self._require_contained, known)
            if row and known and known.size >= size:
                return row.value.decode(), known
            position = self._replica.position
            root = await asyncio.to_thread(self._replica.log.hashes.root, position.size)
            made = Checkpoint(keys.origin, position.size, root)
            note = sign(made, keys.signing)
            still = txn.mod_is(keyspace.AUDIT_CHECKPOINT, row.mod_revision if row else 0)
            put = txn.put(keyspace.AUDIT_CHECKPOINT, note.encode())
            request = txn.txn([still, *fence], [txn.nested([], [put])])  # nested: a full etcd takes it
            if (await self._etcd.transact(request, deadline=deadline, idempotent=True)).succeeded:
                return note, made
        raise Unavailable("others keep signing checkpoints")

    def _require_contained(self, known: Checkpoint) -> None:
        """Blocking. Raises Forked, OSError."""
        log = self._replica.log
        if log.first <= known.size <= log.size and log.hashes.root(known.size) != known.root:
            raise Forked(f"the first {known.size} entries are not those of the signed checkpoint")
