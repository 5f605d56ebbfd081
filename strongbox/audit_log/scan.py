"""What is known in memory of the log on disk, and how it is learned at opening.

* At opening every line is compared with its hash (`stored_hashes`). A line that was changed, a segment that
  is missing or cut off is `damage`: nothing is appended until it is mended (services.audit.log.repair).
* A line without its newline at the very end is what a crash left of an unfinished write: it is cut off.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Marker
from strongbox.audit_log.chain import ROTATE, Entry, parse_line
from strongbox.audit_log.sparse_index import Places
from strongbox.audit_log.stored_hashes import Hashes, Witness

_LARGEST = 4 << 20  # bytes of a marker: each segment that was moved takes some 100
_ANNOUNCES = f'"op":"{ROTATE}"'.encode()


class Broken(Exception):
    """The log on disk is not what this process wrote; people have to look."""


class Damage(NamedTuple):
    """What opening found: from `entry` on, none can be trusted."""

    entry: int
    reason: str


class Look(NamedTuple):
    """What stat(2) tells of a file, by which a change of it by somebody else is noticed."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int  # which no call can set

    @classmethod
    def of(cls, found: os.stat_result) -> Look:
        """From stat(2)."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def segment_path(folder: Path, segment: int) -> Path:
    """A segment's file."""
    return folder / f"audit-{segment:06d}.jsonl"


@dataclass(slots=True)
class Contents:
    """`segment` and `offset`: where the next line goes (-1: no segment yet).

    `marker`: where the log begins. `firsts`: the index of each segment's first entry. `announced`: the
    entries after which another key term holds, and which. `looks`: how each segment was left.
    """

    folder: Path
    marker: Marker
    size: int = 0
    last: Entry | None = None
    damage: Damage | None = None
    segment: int = -1
    offset: int = 0
    places: Places = field(default_factory=Places)
    firsts: dict[int, int] = field(default_factory=dict)
    announced: list[tuple[int, int]] = field(default_factory=list)
    looks: dict[int, Look] = field(default_factory=dict)

    def path(self, segment: int) -> Path:
        """A segment's file."""
        return segment_path(self.folder, segment)

    def begin(self, segment: int) -> None:
        """The next line goes to the beginning of this segment."""
        self.segment, self.offset = segment, 0
        self.firsts[segment] = self.size

    def count(self, line: bytes) -> None:
        """Note that `line` is the next one of the log."""
        self.places.count(self.size, line, self.segment, self.offset)
        if _ANNOUNCES in line:
            self._note_announcement(line)
        self.offset += len(line)
        self.size += 1

    def _note_announcement(self, line: bytes) -> None:
        try:
            entry = parse_line(line)
        except ValueError:  # it will be found out by its hash or its HMAC
            return
        if entry.announces:
            self.announced.append((self.size, entry.announces))


def read_marker(folder: Path) -> tuple[Marker, str]:
    """The marker in a log's folder, and what is wrong with it ("": nothing)."""
    try:
        return read_file(folder / markers.NAME), ""
    except FileNotFoundError:
        return markers.BEGINNING, ""
    except (OSError, ValueError) as error:  # also if it cannot be read: the log's own files may be sound
        return markers.BEGINNING, str(error)


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading; ValueError for anything else (a FIFO would wait). Raises OSError."""
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise ValueError("this is no file")


def read_file(path: Path) -> Marker:
    """The marker in a file. Raises OSError, ValueError."""
    with open_file(path) as stream:
        text = stream.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise ValueError("the marker is too large")
    return markers.parse(text)


def read_contents(folder: Path, hashes: Hashes, marker: Marker) -> Contents:
    """Read every line of the log; completes the row of hashes. Raises OSError."""
    found = Contents(folder, marker, marker.first, segment=marker.segment - 1, places=Places(marker.first))
    witness = Witness(hashes)
    last_line, whole = b"", True
    while whole and found.path(found.segment + 1).exists():
        found.begin(found.segment + 1)
        whole, last_line = _scan(found, witness, last_line)
        found.looks[found.segment] = Look.of(found.path(found.segment).stat())
    witness.finish()
    _judge(found, last_line)
    return found


def _scan(found: Contents, witness: Witness, last_line: bytes) -> tuple[bool, bytes]:
    """Count the current segment's lines; returns whether the log goes on, and its last line."""
    path = found.path(found.segment)
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                if not found.path(found.segment + 1).exists():
                    os.truncate(path, found.offset)
                    break
                found.damage = found.damage or Damage(found.size, f"{path.name} is cut off")
                return False, last_line
            if witness.agrees and not witness.see(line):
                found.damage = Damage(found.size, f"entry {found.size} is not the one that was written")
            found.count(line)
            last_line = line
    return True, last_line


def _judge(found: Contents, last_line: bytes) -> None:
    """Note the damage that shows only once all lines are read."""
    # Segments below the marker may still be here: archived, and not removed yet.
    known = {found.path(segment).name for segment in range(found.segment + 1)}
    extra = {file.name for file in found.folder.glob("audit-*.jsonl")} - known
    if extra and found.damage is None:
        found.damage = Damage(found.size, "a segment is missing")
    if not last_line:
        return
    try:
        found.last = parse_line(last_line)
    except ValueError as error:
        found.damage = found.damage or Damage(found.size - 1, f"the last entry cannot be read: {error}")
        return
    if found.last.index != found.size - 1 and found.damage is None:
        found.damage = Damage(
            found.marker.first, f"the last entry says {found.last.index} and stands at {found.size - 1}"
        )
