"""Reading log files once and checking them by everything that is given. Blocking, constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from services.audit.chain import GENESIS, Keys, Tampered, Verifier
from services.audit.hashes import NAME
from strongbox.trail.checkpoint import Checkpoint
from strongbox.trail.merkle import HASH_BYTES, Frontier, leaf_hash, stored_place

_LONGEST_LINE = 1 << 20  # bytes; ours are under 4 KiB, so a longer one is nobody's entry
_FIRST_LINE = b'{"index":0,'


@dataclass(frozen=True, slots=True)
class Proofs:
    """What there is to check by: HMAC keys by term, and checkpoints whose signatures were right, by size."""

    keys: Keys | None = field(default=None, repr=False)
    checkpoints: tuple[Checkpoint, ...] = ()


@dataclass(slots=True)
class Log:
    """One log, as far as it has been read."""

    entries: int = 0
    head: str = GENESIS
    files: list[Path] = field(default_factory=list)


class Progress:
    """A line on a terminal that says how far it is; nothing where nobody looks."""

    def __init__(self, out: TextIO | None, total: int) -> None:
        self._out, self._total, self._done = out, max(1, total), 0
        self._started = self._told = time.monotonic()

    @classmethod
    def on(cls, out: TextIO, files: Sequence[Path]) -> Progress:
        """On `out` if it is a terminal."""
        total = sum(file.stat().st_size for file in files if file.is_file())
        return cls(out if out.isatty() else None, total)

    def add(self, done: int) -> None:
        """So many bytes more are read."""
        self._done += done
        now = time.monotonic()
        if self._out is not None and now - self._told > 0.2:
            self._told = now
            share = min(1.0, self._done / self._total)
            bar = "#" * int(30 * share)
            speed = self._done / (now - self._started) / 2**20
            self._out.write(f"\r[{bar:<30}] {share:4.0%}  {self._done >> 20} MiB, {speed:.0f} MiB/s ")
            self._out.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._out is not None:
            self._out.write("\r\x1b[K")


class _Pass:
    """One log on its way through."""

    def __init__(self, proofs: Proofs) -> None:
        self.log = Log()
        self._verifier = Verifier(proofs.keys)
        self._frontier = Frontier()
        self._ahead = list(proofs.checkpoints)
        self._signed = 0  # so many entries are those of a checkpoint
        self._meet()

    def take(self, line: bytes) -> None:
        """The next line. Raises Tampered, MissingKey."""
        self._verifier.check(line)
        self.log.entries, self.log.head = self._verifier.size, self._verifier.head
        if self._ahead:
            self._frontier.add(leaf_hash(line))
            self._meet()

    def end(self) -> None:
        """There is no more. Raises Tampered."""
        if self._ahead:
            wanted = self._ahead[-1].size
            raise Tampered(self.log.entries, f"the log ends here; a checkpoint has {wanted} entries")

    def _meet(self) -> None:
        while self._ahead and self._ahead[0].size == self._frontier.size:
            checkpoint = self._ahead.pop(0)
            if self._frontier.root() != checkpoint.root:
                raise self._contradiction(checkpoint)
            self._signed = checkpoint.size

    def _contradiction(self, checkpoint: Checkpoint) -> Tampered:
        exact = find_changed(self.log.files, checkpoint)
        if exact is not None:
            return Tampered(exact, "the entry is not the one that was signed")
        last = checkpoint.size - 1
        reason = f"this entry, or a later one up to {last}, is not the one that was signed"
        return Tampered(self._signed, reason)


def verify_files(files: Sequence[Path], proofs: Proofs, progress: Progress | None = None) -> list[Log]:
    """Check every file; what each log is. Raises Tampered, MissingKey, OSError."""
    current: _Pass | None = None
    logs: list[Log] = []
    for file in files:
        with file.open("rb") as stream:
            first = True
            while line := stream.readline(_LONGEST_LINE):
                if first and (current is None or line.startswith(_FIRST_LINE)):
                    if current is not None:
                        current.end()
                    current = _Pass(proofs)
                    logs.append(current.log)
                assert current is not None
                if first:
                    current.log.files.append(file)
                first = False
                current.take(line)
                if progress is not None:
                    progress.add(len(line))
    (current or _Pass(proofs)).end()
    if progress is not None:
        progress.end()
    return logs


def find_changed(files: Sequence[Path], checkpoint: Checkpoint) -> int | None:
    """The first entry that is not the one signed, if the row of hashes beside the log gives the signed root.

    The row is no authority: it is believed because its leaves lead to a root that was signed.
    """
    row = files[0].with_name(NAME) if files else None
    if row is None or not row.is_file():
        return None
    frontier = Frontier()
    for leaf in _leaves(row, checkpoint.size):
        frontier.add(leaf)
    if frontier.size != checkpoint.size or frontier.root() != checkpoint.root:
        return None
    lines = _lines(files)
    for index, leaf in enumerate(_leaves(row, checkpoint.size)):
        if leaf_hash(next(lines, b"")) != leaf:
            return index
    return None


def _leaves(row: Path, size: int) -> Iterator[bytes]:
    with row.open("rb") as stream:
        for index in range(size):
            stream.seek(stored_place(0, index) * HASH_BYTES)
            leaf = stream.read(HASH_BYTES)
            if len(leaf) < HASH_BYTES:
                return
            yield leaf


def _lines(files: Sequence[Path]) -> Iterator[bytes]:
    for file in files:
        with file.open("rb") as stream:
            while line := stream.readline(_LONGEST_LINE):
                yield line
