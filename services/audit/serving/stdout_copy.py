"""A copy of each entry to standard output, for log collectors, when it is configured
(STRONGBOX_AUDIT_STDOUT).

* The copy is the line of the log, given once it is durable. Every replica gives all entries, so collectors
  tell copies apart by `index`; after a start copying goes on from what is new.
* It blocks nobody: lines wait in a queue of their own, a thread writes them, and once `MOST` lines wait
  because the reader is slow, further lines are dropped and counted. The log itself has them.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterable

import structlog

MOST = 10_000  # lines: some 5 MB
_log = structlog.get_logger(__name__)


class StandardOutput:
    """One process's copies. `file` is the descriptor they go to."""

    def __init__(self, file: int | None = None) -> None:
        self.dropped = 0
        self._file = sys.stdout.fileno() if file is None else file
        self._waiting: queue.Queue[bytes] = queue.Queue(MOST)
        threading.Thread(target=self._write, name="audit to stdout", daemon=True).start()

    def give(self, lines: Iterable[bytes]) -> None:
        """Copy these, or as many as there is room for. Returns at once."""
        for line in lines:
            try:
                self._waiting.put_nowait(line)
            except queue.Full:
                if not self.dropped:
                    _log.warning("standard output is too slow: copies of audit entries are dropped")
                self.dropped += 1

    def _write(self) -> None:
        while True:
            view = memoryview(self._waiting.get())
            try:
                while view:
                    view = view[os.write(self._file, view) :]
            except OSError as error:
                _log.warning("audit entries are not copied any more", why=error.strerror)
                return
