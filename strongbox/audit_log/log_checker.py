"""Reads log files once, and checks them by the keys and checkpoints given. Blocking, constant memory."""

from __future__ import annotations

import contextlib
import filecmp
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from strongbox.audit_log.archive_marker import BEGINNING, COPY, Marker
from strongbox.audit_log.archive_marker import NAME as NAME_OF_MARKER
from strongbox.audit_log.chain import GENESIS, Keys, Tampered, Verifier
from strongbox.audit_log.checkpoint import BadCheckpoint, Checkpoint, verify
from strongbox.audit_log.merkle import HASH_BYTES, Frontier, leaf_hash, stored_place
from strongbox.audit_log.scan import read_file
from strongbox.audit_log.stored_hashes import NAME

_LONGEST_LINE = 1 << 20  # bytes; entries are under 4 KiB, so a longer line is none
_FIRST_LINE = b'{"index":0,'
_INDEX = re.compile(rb'\{"index":(\d{1,18}),')


@dataclass(frozen=True, slots=True)
class Proofs:
    """What logs are checked by: HMAC keys by term; checkpoints with right signatures, smallest first."""

    keys: Keys | None = field(default=None, repr=False)
    checkpoints: tuple[Checkpoint, ...] = ()
    public: bytes = b""


class OfTheArchive(Exception):
    """A checkpoint ends among archived entries, and the archive's files were not given."""

    def __init__(self, size: int, first: int) -> None:
        super().__init__(
            f"the checkpoint of {size} entries needs the archive's files: these begin at {first}"
        )


class Unsigned(Exception):
    """The marker beside a log was made anew from the archive, and holds no checkpoint yet."""

    def __init__(self) -> None:
        super().__init__(
            "the marker beside the log was made anew and is not signed: name the archive's files too"
        )


@dataclass(slots=True)
class Log:
    """One log, as far as it has been read. `first`: where it begins, by the marker beside it."""

    entries: int = 0
    first: int = 0
    head: str = GENESIS
    files: list[Path] = field(default_factory=list)


class Progress:
    """A line on a terminal that shows how much is read; nothing where the output is no terminal."""

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
    """The check of one log, line by line."""

    def __init__(self, proofs: Proofs, marker: Marker = BEGINNING) -> None:
        """Begin where `marker` says. Raises Tampered, OfTheArchive, Unsigned."""
        self.log = Log(marker.first, marker.first, marker.prev_hmac)
        self._verifier = Verifier(proofs.keys, marker.first, marker.prev_hmac, marker.term)
        self._frontier = marker.frontier()
        self._ahead = list(proofs.checkpoints)
        self._signed = marker.first  # how many entries are known to be those that were signed
        if marker.first:
            self._require_ours(marker, proofs)
        self._meet()

    def _require_ours(self, marker: Marker, proofs: Proofs) -> None:
        """Check the marker by its mac, and by the checkpoint that it holds."""
        if proofs.keys is not None and not marker.is_ours(proofs.keys):
            raise Tampered(marker.first, "the marker beside the log was not made with the chain's key")
        if self._ahead and self._ahead[0].size < marker.first:
            raise OfTheArchive(self._ahead[0].size, marker.first)
        if proofs.public and not marker.checkpoint:
            raise Unsigned
        if proofs.public:
            try:
                told = verify(marker.checkpoint, proofs.public)
            except BadCheckpoint as fault:
                raise Tampered(marker.first, f"the marker beside the log: {fault}") from None
            self._ahead = sorted([*self._ahead, told], key=lambda one: one.size)

    def take(self, line: bytes) -> None:
        """The next line. Raises Tampered, MissingKey."""
        self._verifier.check(line)
        self.log.entries, self.log.head = self._verifier.size, self._verifier.head
        if self._ahead:
            self._frontier.add(leaf_hash(line))
            self._meet()

    def end(self) -> None:
        """The log has no more lines. Raises Tampered if a checkpoint has more."""
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
    """Check every file; returns the logs. Raises Tampered, MissingKey, OfTheArchive, Unsigned, OSError.

    A file begins another log when it holds entry 0, or when the marker beside it names its first entry and
    the log read before has that entry already. Else it continues that log, such as one from the archive.
    """
    current: _Pass | None = None
    logs: list[Log] = []
    for file in files:
        if current is not None and any(_is_left_over(file, known) for known in current.log.files):
            continue
        with file.open("rb") as stream:
            first = True
            while line := stream.readline(_LONGEST_LINE):
                if first and (current is None or _begins_another(file, line, current.log)):
                    if current is not None:
                        current.end()
                    current = _Pass(proofs, _marker_of(file, line))
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


def _begins_another(file: Path, line: bytes, log: Log) -> bool:
    """Whether a file whose first line this is belongs to another log than the one that is read."""
    if line.startswith(_FIRST_LINE):
        return True
    return 0 < _marker_of(file, line).first < log.entries


def _is_left_over(file: Path, known: Path) -> bool:
    """Whether a file is a copy of `known`, archived and not removed yet: its log's marker begins above it."""
    if file.name != known.name or file == known or not filecmp.cmp(file, known, shallow=False):
        return False
    with file.open("rb") as stream:
        line = stream.readline(_LONGEST_LINE)
    index = _INDEX.match(line)
    return index is not None and any(int(index[1]) < marker.first for marker in _markers_beside(file))


def _marker_of(file: Path, line: bytes) -> Marker:
    """The marker beside a log whose first line this is; `BEGINNING` if none fits."""
    if line.startswith(_FIRST_LINE):
        return BEGINNING
    fitting = (one for one in _markers_beside(file) if line.startswith(b'{"index":%d,' % one.first))
    return next(fitting, BEGINNING)


def _markers_beside(file: Path) -> Iterator[Marker]:
    for beside in (file.with_name(NAME_OF_MARKER), file.with_name(COPY)):
        with contextlib.suppress(OSError, ValueError):
            yield read_file(beside)


def find_changed(files: Sequence[Path], checkpoint: Checkpoint) -> int | None:
    """The first entry that is not the one signed; `None` unless the row of hashes beside the log tells it.

    The row alone proves nothing: it is used only if its leaves lead to the root that was signed.
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
