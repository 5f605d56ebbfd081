"""The log's Merkle hashes on disk: `audit.hashes`, 32 bytes each, in stored order (strongbox.trail.merkle).

* Derived from the lines and nothing else, so it is not fsynced: what a crash tore off is computed again at
  opening, when the whole row is compared with the lines. So it is also a witness: a line that was changed on
  disk no longer has its hash.
* It grows by 64 bytes an entry, memory by nothing: proofs read the few hashes they need.
* It is no authority. What is proved from it is verified before it is told, and the root it gives is compared
  with the newest checkpoint, whose signature nobody without the key can make.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from strongbox.trail.merkle import HASH_BYTES, Frontier, leaf_hash, root_of, stored_count, stored_place

NAME = "audit.hashes"
_CHUNK = 1 << 20  # bytes


class Hashes:
    """One log's row. Blocking. One writer at a time."""

    def __init__(self, folder: Path) -> None:
        """Open the row, or begin one. Raises OSError."""
        self.path = folder / NAME
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._frontier = Frontier()

    @property
    def size(self) -> int:
        """Of how many leaves all hashes are known to be there."""
        return self._frontier.size

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def extend(self, lines: Iterable[bytes]) -> None:
        """Add the leaves of these lines. Raises OSError; then `back_to` where it was."""
        frontier = self._frontier
        new = [each for line in lines for each in frontier.add(leaf_hash(line))]
        data = memoryview(b"".join(new))
        place = (stored_count(frontier.size) - len(new)) * HASH_BYTES
        while data:
            written = os.pwrite(self._file, data, place)
            data, place = data[written:], place + written

    def back_to(self, size: int) -> None:
        """Forget all but the first `size` leaves, which are there. Raises OSError."""
        os.ftruncate(self._file, stored_count(size) * HASH_BYTES)
        self._frontier = Frontier.of(size, self.read)

    def clear(self) -> None:
        """Forget all. Raises OSError."""
        self.back_to(0)

    def read(self, place: int) -> bytes:
        """The hash at a place of the row. Raises OSError; what is short gives no valid proof."""
        return os.pread(self._file, HASH_BYTES, place * HASH_BYTES)

    def leaf(self, index: int) -> bytes:
        """The hash of one entry's line."""
        return self.read(stored_place(0, index))

    def root(self, size: int) -> bytes:
        """The root over the first `size` entries."""
        return root_of(size, self.read)


class Witness:
    """Compares lines, from the first on, with the row that stands on disk, and completes it."""

    def __init__(self, hashes: Hashes) -> None:
        hashes._frontier = Frontier()
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
            os.ftruncate(self._hashes._file, self._place)

    def _write(self) -> None:
        view = memoryview(self._missing)
        while view:
            written = os.pwrite(self._hashes._file, view, self._place)
            view, self._place = view[written:], self._place + written
        del view
        self._missing = bytearray()
