"""Closing producers that are gone: an incarnation that died is closed by its cursor, and the cursor removed.

Every start of a process leaves a cursor in etcd, so without this the cursors would grow with the restarts.

* A producer is alive when a session key names its incarnation. A session that is lost is not a death (etcd's
  leader failing over takes all of them for a moment), so a producer counts as gone only when no session has
  named it, and its cursor has not moved, for `PATIENCE` of the duty holder's own time.
* Only when nothing of it is left in the outbox: then its last batch is chained, and the cursor's number said
  how many there were, which every replica has compared when it saw the cursor move.
* The deletion compares the cursor's revision, so a producer that moves again in the last moment stays. One
  that wakes up later (a process that was stopped for a minute) finds its cursor gone: nothing it had under
  way can take effect any more, and it begins as a new incarnation.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from strongbox.process.presence import told_in
from strongbox.store import keyspace
from strongbox.store.etcd.client import KV

PATIENCE = 60.0  # seconds
MOST = 32  # cursors closed in one round


class Closing:
    """What the holder of the duty has seen of each cursor: since when, at which revision."""

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
