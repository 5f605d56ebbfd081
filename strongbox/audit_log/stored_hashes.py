"""The log's Merkle hashes on disk: `audit.hashes`, 32 bytes each, in stored order (`merkle`).

Where entries were archived, the row begins with the first entry that is kept, in a file named after it
(`audit-<first>.hashes`), and the frontier of those below stands in the marker. Proofs about kept entries need
no other hash of archived ones: the subtrees to the left of `first` that a path meets are the frontier's.

* Derived from the lines and nothing else, so it is not fsynced: what a crash tore off is computed again at
  opening, when the whole row is compared with the lines. So it is also a witness: a line that was changed on
  disk no longer has its hash.
* It grows by 64 bytes an entry, memory by nothing: proofs read the few hashes they need.
* While the frontier of those below is lost (services.audit.log.find_beginning), another row is kept in a file
  of its own. It only shows which lines were changed: it gives no root and no proof.
* It is not trusted. A proof made from it is verified before it is given out, and the root it gives is
  compared with the newest checkpoint, whose signature nobody without the key can make.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Archived, Marker, Unproven
from strongbox.audit_log.merkle import (
    HASH_BYTES,
    Frontier,
    leaf_hash,
    peak_places,
    root_of,
    stored_count,
    stored_place,
)

NAME = "audit.hashes"
_CHUNK = 1 << 20  # bytes


def row_path(folder: Path, first: int) -> Path:
    """The row of a log whose first entry is `first`."""
    return folder / (f"audit-{first}.hashes" if first else NAME)


def unproved_path(folder: Path, first: int) -> Path:
    """The row of a log that begins at `first`, while the hashes of the entries below are not known."""
    return folder / f"audit-{first}.unproved"


def _path(folder: Path, marker: Marker) -> Path:
    return (row_path if marker.has_hashes else unproved_path)(folder, marker.first)


class _Row(NamedTuple):
    """One open file. `skipped`: places that are not in it; `below`: those of them that the marker has."""

    file: int
    marker: Marker
    skipped: int
    below: dict[int, bytes]

    @classmethod
    def open(cls, folder: Path, marker: Marker) -> _Row:
        """Raises OSError."""
        file = os.open(_path(folder, marker), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        below = dict(zip(peak_places(marker.first), marker.peaks, strict=True))
        return cls(file, marker, stored_count(marker.first), below)

    def offset(self, place: int) -> int:
        """Where a place stands in the file, in bytes."""
        return (place - self.skipped) * HASH_BYTES


class Hashes:
    """One log's row. Blocking. One writer at a time."""

    def __init__(self, folder: Path, marker: Marker = markers.BEGINNING) -> None:
        """Open the row, or begin one. Raises OSError."""
        self._folder = folder
        self._row = _Row.open(folder, marker)
        self._before: _Row | None = None
        self._frontier = marker.frontier()

    def begin_at(self, marker: Marker) -> None:
        """Use the row that begins where `marker` says, with no leaf known yet. Raises OSError."""
        self.go_on_from(marker)
        self._frontier = marker.frontier()

    def go_on_from(self, marker: Marker) -> None:
        """Use another row, which has the same hashes from `marker` on. Raises OSError; then nothing changed.

        Whoever is reading may go on: the row before stays open until the next change.
        """
        row = _Row.open(self._folder, marker)
        if self._before is not None:
            os.close(self._before.file)
        self._row, self._before = row, self._row

    @property
    def path(self) -> Path:
        """The row's file."""
        return _path(self._folder, self._row.marker)

    @property
    def size(self) -> int:
        """How many leaves have their hashes in the row, or are having them added."""
        return self._frontier.size

    def close(self) -> None:
        """Close the row's files."""
        for row in filter(None, (self._row, self._before)):
            if row.file >= 0:
                os.close(row.file)
        self._row, self._before = self._row._replace(file=-1), None

    def extend(self, lines: Iterable[bytes]) -> None:
        """Add the leaves of these lines. Raises OSError: then call `back_to` with the size before."""
        frontier = self._frontier
        new = [each for line in lines for each in frontier.add(leaf_hash(line))]
        data = memoryview(b"".join(new))
        row = self._row
        place = row.offset(stored_count(frontier.size) - len(new))
        while data:
            written = os.pwrite(row.file, data, place)
            data, place = data[written:], place + written

    def back_to(self, size: int) -> None:
        """Forget all but the first `size` leaves, which must be in the row. Raises OSError."""
        os.ftruncate(self._row.file, self._row.offset(stored_count(size)))
        self._frontier = Frontier.of(size, self._read)

    def clear(self) -> None:
        """Forget all that can be computed again. Raises OSError."""
        self.back_to(self._row.marker.first)

    @property
    def is_whole(self) -> bool:
        """Whether roots are known: not if the hashes of what is archived are lost."""
        return self._row.marker.has_hashes

    def read(self, place: int) -> bytes:
        """The hash at a place of the row; fewer bytes, and so no valid proof, where the row is too short.

        Raises OSError, Archived.
        """
        if not self.is_whole:
            raise Unproven(self._row.marker.first)
        return self._read(place)

    def _read(self, place: int) -> bytes:
        row = self._row
        if place < row.skipped:
            if place not in row.below:
                raise Archived(row.marker.first)
            return row.below[place]
        return os.pread(row.file, HASH_BYTES, row.offset(place))

    def copy_from(self, first: int, size: int, target: int, done: int) -> int:
        """Copy the row from leaf `first` on to the open file `target`, which has `done` bytes of it already.

        `size`: of how many leaves. It is for the caller to say: `self.size` also counts those that are being
        added, whose hashes may not be there yet, or be taken back. Returns how many bytes `target` has then.
        Raises OSError.
        """
        row = self._row
        start, end = row.offset(stored_count(first)), row.offset(stored_count(size))
        while start + done < end:
            data = os.pread(row.file, min(_CHUNK, end - start - done), start + done)
            if not data:
                raise OSError(errno.EIO, "the row of hashes is shorter than it was", str(self.path))
            done += os.pwrite(target, data, done)
        return done

    def is_as_written(self) -> bool:
        """Whether the leaves on disk still lead to the frontier in memory, which nobody else can change.

        Reads them all. Raises OSError. Nothing may be added meanwhile.
        """
        found = self._row.marker.frontier()
        while found.size < self.size:
            found.add(self.leaf(found.size))
        return found.peaks == self._frontier.peaks

    def leaf(self, index: int) -> bytes:
        """The hash of one entry's line."""
        return self._read(stored_place(0, index))

    def root(self, size: int) -> bytes:
        """The root over the first `size` entries."""
        return root_of(size, self.read)


class Witness:
    """Compares lines, from the first that is kept on, with the row that stands on disk, and completes it."""

    def __init__(self, hashes: Hashes) -> None:
        hashes._frontier = hashes._row.marker.frontier()
        self._hashes = hashes
        self._known = hashes.path.open("rb", buffering=1 << 20)
        self._place = 0  # bytes of the row that agree, or are made anew
        self._missing = bytearray()
        self._complete = True
        self.agrees = True

    def see(self, line: bytes) -> bool:
        """Take the next line; whether it is the one the row knows, as far as the row goes. Raises OSError."""
        new = b"".join(self._hashes._frontier.add(leaf_hash(line)))
        if self._complete:
            found = self._known.read(len(new))
            if found == new:
                self._place += len(new)
                return True
            if len(found) == len(new):
                self.agrees = False
                return False
            self._complete = False
        self._missing += new
        if len(self._missing) > _CHUNK:
            self._write()
        return True

    def finish(self) -> None:
        """Make the row end with the lines, if it agrees with them. Raises OSError."""
        self._known.close()
        if self.agrees:
            self._write()
            os.ftruncate(self._hashes._row.file, self._place)

    def _write(self) -> None:
        view = memoryview(self._missing)
        while view:
            written = os.pwrite(self._hashes._row.file, view, self._place)
            view, self._place = view[written:], self._place + written
        del view
        self._missing = bytearray()
