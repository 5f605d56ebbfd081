"""Closing producers that are gone: the cursor of an incarnation that died is removed.

Every start of a process leaves a cursor in etcd, so without this their number would grow with every restart.

* A producer is alive when a session key names its incarnation. A lost session does not mean a dead process
  (when etcd's leader fails over, all sessions are lost for a moment). So a producer counts as gone only when
  no session has named it, and its cursor has not moved, for `PATIENCE` on the duty holder's own clock.
* It is closed only when none of its records is left in the outbox: then its last batch is chained, and each
  replica has compared the number of its batches with the cursor.
* The deletion compares the cursor's revision, so a producer that moves its cursor at the last moment is kept.
  One that wakes up later (a process that was stopped for a minute) finds its cursor gone: none of its pending
  batches can take effect any more, and it begins as a new incarnation.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from strongbox.process.presence import told_in
from strongbox.store import keyspace
from strongbox.store.etcd.client import KV

PATIENCE = 60.0  # seconds
MOST = 32  # cursors closed in one round


class Closing:
    """Since when (monotonic seconds), and at which revision, each cursor has not moved."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._silent: dict[bytes, tuple[float, int]] = {}

    def due(
        self, cursors: Sequence[KV], alive: Container[str], records: Sequence[KV], now: float
    ) -> list[KV]:
        """The cursors to remove; `now` in monotonic seconds. `alive`: incarnations that sessions name."""
        silent: dict[bytes, tuple[float, int]] = {}
        for row in cursors:
            if _incarnation(row.key) in alive:
                continue
            since, revision = self._silent.get(row.key, (now, row.mod_revision))
            silent[row.key] = (since, revision) if revision == row.mod_revision else (now, row.mod_revision)
        self._silent = silent
        left = {row.key.rsplit(b"/", 2)[0].removeprefix(keyspace.OUTBOX) for row in records}
        ripe = (
            row
            for row in cursors
            if row.key in silent
            and now - silent[row.key][0] >= self._patience
            and row.key.removeprefix(keyspace.PRODUCERS) not in left
        )
        return [row for row, _ in zip(ripe, range(MOST), strict=False)]


def incarnations_of(sessions: Sequence[KV]) -> Iterator[str]:
    """The incarnations that live processes name in their session keys."""
    for row in sessions:
        if "incarnation" in (told := told_in(row.value)):
            yield str(told["incarnation"])


def _incarnation(cursor: bytes) -> str:
    return cursor.rsplit(b"/", 1)[-1].decode("utf-8", "backslashreplace")
