"""When etcd itself answered nobody, as the suite sees it with a certificate of its own.

A cluster whose etcd answers no read for ten seconds seals itself; that is a promise (docs/threat-model.md).
No fault here stops all of etcd for so long, but a machine that has no time can. Then the run unseals the
cluster as people would, says so, and goes on; without such a silence a cluster that sealed itself is a
violation.
"""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Self

import grpc

from tests.support.etcd_door import EtcdDoor

SEALS_AFTER = 8.0  # seconds without an answer, seen from here: nodes may have been ten without a proof
_EVERY = 0.5  # seconds between two reads
_NOTED = 2.0  # seconds


class EtcdSilence:
    """A context manager that reads until it ends."""

    def __init__(self, etcd: EtcdDoor) -> None:
        self._etcd = etcd
        self._gaps: list[tuple[float, float]] = []
        self._answered = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="etcd's silence", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def longest(self, since: float) -> float:
        """Seconds: the longest time without an answer that was over, or is not, after `since` (monotonic)."""
        gaps = [*self._gaps, (self._answered, time.monotonic())]
        return max(end - begin for begin, end in gaps if end >= since)

    def note(self, asked: float, answered: float) -> None:
        """A read that was asked at `asked` came back."""
        if answered - self._answered > _NOTED:
            self._gaps.append((self._answered, answered))
        self._answered = max(self._answered, asked)

    def _read(self) -> None:
        while not self._ended.wait(_EVERY):
            asked = time.monotonic()
            with contextlib.suppress(grpc.RpcError):
                self._etcd.range(b"\0")
                self.note(asked, time.monotonic())
