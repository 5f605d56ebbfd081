"""How much waits in the outbox: the number of records, and their bytes together.

* The duty lists keys only, since values may be large. Each record is read once for its size, some in each
  round, within `BYTES` and `SECONDS`, so that neither trimming nor the cluster's time waits for it.
* A record that is not measured yet (after a takeover, or when many arrive) counts as the mean of the others.
* An inexact figure only shifts the limit at which producers stop: so a failure of etcd here does not stop the
  duty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import structlog

from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd, rows_of
from strongbox.store.etcd.errors import EtcdError

BYTES = 16 << 20  # read in one round at most; the last answer may exceed it
SECONDS = 0.3  # for one round
AT_ONCE = 64  # records in one answer at most; fewer while they are large
_LEAST = 4
_ANSWER = 2 << 20  # bytes; an answer larger than this halves the next ones
_Id = tuple[bytes, int]  # key and mod_revision
_log = structlog.get_logger(__name__)


class Backlog(NamedTuple):
    """Records that are not trimmed, and their bytes. `records` is -1 until somebody has looked."""

    records: int = -1
    size: int = 0


class Measuring:
    """The sizes of the outbox's records, as far as they are known."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._known: dict[_Id, int] = {}
        self._at_once = AT_ONCE // 4

    async def measure(self, left: Sequence[KV]) -> Backlog:
        """The number and bytes of these records (rows in key order, without values)."""
        self._known = {one: self._known[one] for row in left if (one := _id(row)) in self._known}
        began, budget = time.monotonic(), BYTES
        while budget > 0 and (left_s := began + SECONDS - time.monotonic()) > 0:
            some = self._unknown(left)
            if not some:
                break
            try:
                budget -= await self._read(some, time.monotonic() + left_s)
            except EtcdError as error:
                self._at_once = max(_LEAST, self._at_once // 2)  # the answer may have been too large
                _log.info("the outbox is not measured now", why=type(error).__name__)
                break
        known = sum(self._known.values())
        measured = len(self._known)
        return Backlog(len(left), known * len(left) // measured if measured else 0)

    def _unknown(self, left: Sequence[KV]) -> list[list[KV]]:
        """The next records to read, in runs of neighbours: each is one range."""
        runs: list[list[KV]] = []
        room, follows = self._at_once, False
        for row in left:
            if not room:
                break
            if _id(row) in self._known:
                follows = False
                continue
            if not follows:
                runs.append([])
            runs[-1].append(row)
            room, follows = room - 1, True
        return runs

    async def _read(self, runs: Sequence[Sequence[KV]], deadline: float) -> int:
        """Read these records and keep their sizes; returns how many bytes were read. Raises EtcdError."""
        asked = [txn.range_(run[0].key, run[-1].key + b"\0", len(run)) for run in runs]
        reply = await self._etcd.transact(txn.txn([], asked), deadline=deadline, idempotent=True)
        found = [row for part in reply.responses for row in rows_of(part.response_range)]
        size = sum(len(row.value) for row in found)
        self._known |= {_id(row): len(row.key) + len(row.value) for row in found}
        # A record that was deleted or put again meanwhile is not asked for again in this round.
        self._known |= {one: 0 for one in _ids(runs) if one not in self._known}
        self._at_once = max(_LEAST, self._at_once // 2) if size > _ANSWER else min(AT_ONCE, 2 * self._at_once)
        return size


def _ids(runs: Sequence[Sequence[KV]]) -> Iterator[_Id]:
    return (_id(row) for run in runs for row in run)


def _id(row: KV) -> _Id:
    return row.key, row.mod_revision
