"""The log on disk: `audit-000000.jsonl`, `audit-000001.jsonl`, … in one folder.

* Lines are appended in one write and fsynced before anybody is told; a new file's name is fsynced in its
  folder.
* A line that would make a segment larger than 64 MiB begins the next one: this depends on the lines alone, so
  all replicas cut at the same places, and there is never an empty next file.
* A line without its newline at the very end is what a crash left of an unfinished write: it is cut off at
  opening.
* A file that was replaced, removed, cut or grown by somebody else is noticed by `check`, and nothing is
  appended to it.
* Where every 256th entry begins is kept in memory (16 bytes each), so that reading from an index is a short
  scan.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.audit.chain import GENESIS, Entry, parse_line

SEGMENT_BYTES = 64 << 20
_STRIDE = 256


class Broken(Exception):
    """The log on disk is not what this process wrote; people have to look."""


class Segments:
    """One replica's log. Blocking; call it from a thread where that matters. One writer at a time."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open the log, or begin one. Raises OSError, and Broken when the last entry cannot be read."""
        self._folder = folder
        self._limit = segment_bytes
        self._places: list[tuple[int, int]] = []  # (segment, offset) of every _STRIDE-th entry
        self._file: int | None = None
        self._segment = -1
        self._offset = 0
        self._lock = threading.Lock()
        self.size = 0
        self.last: Entry | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._load()

    @property
    def head(self) -> str:
        """The newest entry's HMAC, or 64 zeros."""
        return self.last.hmac if self.last else GENESIS

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries, which continue the log, durably. Raises OSError (then `reopen`) or Broken."""
        with self._lock:
            self._check()
            try:
                self._append(entries)
            except OSError:
                # Until `reopen` has cut off what the write left, nobody may take that for damage.
                self.close()
                raise

    def _append(self, entries: Sequence[Entry]) -> None:
        pending: list[bytes] = []
        waiting = 0
        for entry in entries:
            line = entry.line()
            place = self._offset + waiting
            if self._file is None or (place and place + len(line) > self._limit):
                self._flush(pending)
                self._open(self._segment + 1)
                pending, waiting = [], 0
            pending.append(line)
            waiting += len(line)
        self._flush(pending)
        if entries:
            self.last = entries[-1]

    def reopen(self) -> None:
        """After a failed write: cut off what it left, go on from what is whole. Raises OSError or Broken."""
        with self._lock:
            self.close()
            self._load()

    def check(self) -> None:
        """Raise Broken unless the current file is still the one we write, as long as we left it."""
        with self._lock:
            self._check()

    def _check(self) -> None:
        if self._file is None:
            return
        path = self._path(self._segment)
        try:
            named, ours = os.stat(path), os.fstat(self._file)
        except OSError as error:
            raise Broken(f"{path.name} cannot be looked at: {error.strerror}") from error
        if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
            raise Broken(f"{path.name} was replaced")
        if named.st_size != self._offset:
            raise Broken(f"{path.name} has {named.st_size} bytes, not the {self._offset} written")
        if not os.access(path, os.W_OK):
            raise Broken(f"{path.name} cannot be written")

    def read(self, from_index: int) -> Iterator[bytes]:
        """The lines from an index on, as they stood when the reading began."""
        end = self.size
        if from_index >= end:
            return
        segment, offset = self._places[from_index // _STRIDE]
        index = from_index - from_index % _STRIDE
        while index < end:
            with self._path(segment).open("rb") as stream:
                stream.seek(offset)
                for line in stream:
                    if index >= end:
                        return
                    if index >= from_index:
                        yield line
                    index += 1
            segment, offset = segment + 1, 0
            if index < end and segment > self._segment:
                raise Broken(f"the log ends at entry {index}, not at {end}")

    def hmac_at(self, size: int) -> str:
        """The chain's HMAC when it had `size` entries. Raises IndexError when it never had as many."""
        if size == 0:
            return GENESIS
        if self.last and size == self.size:
            return self.last.hmac
        for line in self.read(size - 1):
            return parse_line(line).hmac
        raise IndexError(size)

    # opening --------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._places, self.size, self.last = [], 0, None
        self._segment, self._offset = -1, 0
        last_line = b""
        while self._path(self._segment + 1).exists():
            self._segment += 1
            self._offset = 0
            last_line = self._scan() or last_line
        names = {file.name for file in self._folder.glob("audit-*.jsonl")}
        if names != {self._path(segment).name for segment in range(self._segment + 1)}:
            raise Broken("a segment is missing")
        if self._segment >= 0:
            self._open(self._segment)
        if last_line:
            self.last = _last_entry(last_line, self.size - 1)

    def _scan(self) -> bytes:
        """Count the current segment's lines; returns the last. Cuts off a torn line at the end of the log."""
        path, last_line = self._path(self._segment), b""
        with path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    if self._path(self._segment + 1).exists():
                        raise Broken(f"{path.name} is cut off")
                    os.truncate(path, self._offset)
                    break
                self._count(line)
                last_line = line
        return last_line

    def _open(self, segment: int) -> None:
        """Open a segment for appending; a new one begins at offset 0."""
        self.close()
        if segment != self._segment:
            self._segment, self._offset = segment, 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path(segment), flags, 0o600)
        os.fsync(self._file)
        self._sync_folder()

    # writing --------------------------------------------------------------------------------------

    def _flush(self, lines: list[bytes]) -> None:
        """Write whole lines and fsync them; only then do they count."""
        if not lines or self._file is None:
            return
        view = memoryview(b"".join(lines))
        while view:
            view = view[os.write(self._file, view) :]
        os.fsync(self._file)
        for line in lines:
            self._count(line)

    def _count(self, line: bytes) -> None:
        if self.size % _STRIDE == 0:
            self._places.append((self._segment, self._offset))
        self._offset += len(line)
        self.size += 1

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, segment: int) -> Path:
        return self._folder / f"audit-{segment:06d}.jsonl"


def _last_entry(line: bytes, index: int) -> Entry:
    try:
        entry = parse_line(line)
    except ValueError as error:
        raise Broken(f"the last entry cannot be read: {error}") from None
    if entry.index != index:
        raise Broken(f"the last entry says {entry.index} and stands at {index}")
    return entry
