"""A producer's cursor: where it is, and what became of a batch whose answer was lost.

The cursor's value is `<batch>:<attempt nonce>`; every batch compares its mod_revision and moves it. So at
most one attempt of a batch lands, and when the cursor has moved its nonce says which attempt that was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Journal
from strongbox.store.decisions.view import Fetch, Row
from strongbox.store.etcd import errors
from strongbox.store.etcd.client import KV, Etcd

_LOOK = 2.0  # seconds to find the cursor: other requests end by their own deadlines meanwhile
_LOOK_BACK = 2.0  # seconds to read what landed


class Cursor:
    """`batch` is the number of the last batch that landed, `revision` where that was (0: none yet)."""

    def __init__(self, etcd: Etcd, journal: Journal) -> None:
        self.batch = 0
        self.revision = 0
        self.certain = True
        self._value = b""
        self._etcd, self._journal = etcd, journal

    def at(self, batch: int, revision: int) -> None:
        """Note the last batch that landed, and the etcd revision of that."""
        self.batch, self.revision = batch, revision

    def begin_anew(self) -> None:
        """The journal has a new cursor key, which is not there yet."""
        self.at(0, 0)

    def found(self, row: KV) -> None:
        """Take the cursor from its row in etcd."""
        self._value = row.value
        self.at(int(row.value.split(b":")[0]), row.mod_revision)

    def stands_at(self, batch: int, nonce: str) -> bool:
        """Whether etcd last said that this attempt was the one that landed."""
        return self._value == b"%d:%s" % (batch, nonce.encode())

    async def find(self) -> bool:
        """Learn where the cursor is after a batch whose outcome is unknown; False: etcd does not say."""
        try:
            row = await self._etcd.get(self._journal.cursor_key, deadline=time.monotonic() + _LOOK)
        except errors.EtcdError:
            return False
        if row is not None:
            self.found(row)
        self.certain = True
        return True

    async def landed(self) -> set[bytes]:
        """The record keys of the batch the cursor stands at, as of then: they may be trimmed since.

        Raises EtcdError; after Compacted it cannot be known any more.
        """
        prefix = self._journal.batch_prefix(self.batch)
        end = keyspace.prefix_end(prefix)
        deadline = time.monotonic() + _LOOK_BACK
        reply = await self._etcd.range(prefix, end, revision=self.revision, keys_only=True, deadline=deadline)
        return {row.key for row in reply.rows}

    async def fetched(self, fetches: Sequence[Fetch]) -> tuple[Row, ...]:
        """What the fetches of a part that landed read. Raises EtcdError."""
        rows: list[Row] = []
        for start, end, limit, keys_only in fetches:
            deadline = time.monotonic() + _LOOK_BACK
            reply = await self._etcd.range(start, end, limit, self.revision, keys_only, deadline=deadline)
            rows.extend(Row(kv.key, kv.value, kv.mod_revision, kv.create_revision) for kv in reply.rows)
        return tuple(rows)
