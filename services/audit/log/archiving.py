"""Archiving: whole segments are moved to another folder, and a marker stays in their place. Blocking.

The order is such that a crash or a failed call at any point leaves every entry in the log, or archived and
perhaps in the log as well; doing it again finishes what was begun:

1. Each segment is copied under another name, fsynced, and renamed. A file that is there already (of another
   replica, or of an attempt that failed) must have the same contents.
2. Each copy is read again, from the disk where the system allows. Every HMAC and link is checked, and that
   the Merkle frontier is the log's, for which a signed checkpoint exists. The folder is fsynced.
3. The row of hashes from the first kept entry on is copied and fsynced. Then the marker is written: from its
   renaming on, the log begins there. Copies of the marker are put into the archive and beside it before, so
   that one damaged file costs nothing (`find_beginning`).
4. Only then, and after each copy's SHA-256 has been compared with the marker once more, segments are removed.

The replicas of one log share an archive, or each has its own: the files are the same byte for byte. What
somebody else put there is not trusted: a copy must be a regular file, no symbolic link, and no hard link to
the segment or anything else; a file to be written is always created.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.audit.log.segments import Segments
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Marker, Moved
from strongbox.audit_log.chain import Keys, MissingKey, Tampered, Verifier
from strongbox.audit_log.merkle import Frontier, leaf_hash
from strongbox.audit_log.scan import read_file
from strongbox.audit_log.stored_hashes import row_path

_CHUNK = 1 << 20  # bytes
_log = structlog.get_logger(__name__)


class NotArchived(Exception):
    """A copy in the archive is not what the log holds; nothing was removed."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A folder for segments. `owner` keeps the unfinished files of replicas that share it apart."""

    folder: Path
    owner: str

    def move(self, log: Segments, below: int, keys: Keys, checkpoint: str) -> int:
        """Move every whole segment below entry `below`; returns how many.

        `checkpoint`: a signed note of at least `below` entries, with which the log agrees. Raises OSError,
        NotArchived, MissingKey, Broken.
        """
        self.clear(log, keys)  # what an earlier move left: the next marker no longer names it
        starts = {segment: first for segment, first in dict(log.firsts).items() if log.first < first <= below}
        kept = max(starts, default=log.marker.segment)
        going = range(log.marker.segment, kept)
        if going:
            made = self._store(log, going, keys, checkpoint)
            _leave_marker(log, made, self)
            _log.info("audit segments are archived", segments=len(going), first_index=made.first)
        self.clear(log, keys)
        return len(going)

    def clear(self, log: Segments, keys: Keys) -> None:
        """Remove the segments that the log's marker says are archived, if they are. Raises as `move`."""
        marker = log.marker
        left = [one for one in marker.moved if (log.folder / one.name).exists()]
        if left and not marker.is_ours(keys):
            raise NotArchived("the marker was not made with the chain's key")
        for one in left:
            if _sha256_of(self.folder / one.name, log.folder / one.name) != one.sha256:
                raise NotArchived(f"{one.name} in the archive is not the one that was moved there")
        for one in left:
            os.unlink(log.folder / one.name)
        rows = [path for path in _rows(log.folder) if path != log.hashes.path and log.first]
        for path in rows:
            os.unlink(path)
        if left or rows:
            log.sync_folder()

    def _store(self, log: Segments, going: range, keys: Keys, checkpoint: str) -> Marker:
        """Copy these segments and check the copies; returns the marker that can take their place."""
        verifier = Verifier(keys, log.first, log.marker.prev_hmac, log.marker.term)
        frontier, moved = log.marker.frontier(), []
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for segment in going:
            source = log.path(segment)
            target = self.folder / source.name
            if not target.exists():
                with self._unfinished(target) as file:
                    _copy(source, file)
            moved.append(_read_again(target, source, verifier, frontier))
        _sync(self.folder)
        if verifier.size != log.firsts[going.stop]:
            raise NotArchived(f"the archive has {verifier.size} entries, not {log.firsts[going.stop]}")
        if frontier.peaks != Frontier.of(verifier.size, log.hashes.read).peaks:
            raise NotArchived("the entries in the archive are not those of this log")
        made = Marker(
            verifier.size, going.stop, verifier.head, verifier.term, frontier.peaks, tuple(moved), checkpoint
        )
        return made.signed(keys)

    @contextlib.contextmanager
    def _unfinished(self, target: Path) -> Iterator[int]:
        """A file that has the target's name once it is whole and durable."""
        with durable_file(target, target.with_name(f".{target.name}.{self.owner}.part")) as file:
            yield file


@contextlib.contextmanager
def durable_file(target: Path, part: Path) -> Iterator[int]:
    """An open file named `part`; on success it is fsynced and renamed to `target`. Raises OSError."""
    file = _made_anew(part)
    try:
        yield file
        os.fsync(file)
        os.rename(part, target)
        if hasattr(os, "posix_fadvise"):  # so that reading it again asks the disk
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def write_marker(folder: Path, marker: Marker) -> None:
    """Put the marker and the copy beside it into a log's folder, durably, the copy first. Raises OSError."""
    for name in (markers.COPY, markers.NAME):
        _write_as(folder, name, marker)


def archive_marker(archive: Archive, marker: Marker) -> None:
    """Put the marker into the archive twice: under its first entry and as the newest. Raises OSError."""
    for name in (markers.archived_name(marker.first), markers.NAME):
        _write_as(archive.folder, name, marker, archive.owner)


def keep_copies(log: Segments, archive: Archive | None) -> list[str]:
    """Write changed files of the log's marker again; returns their names. Raises OSError.

    This process knows the marker from its start, when the chain's key and the segments confirmed it.
    """
    marker = log.marker
    if not marker.first or not marker.has_hashes or log.damage:
        return []
    wrong = [name for name in (markers.COPY, markers.NAME) if not holds(log.folder / name, marker)]
    for name in wrong:
        _write_as(log.folder, name, marker)
    if archive is not None and archive.folder.is_dir():
        name = markers.archived_name(marker.first)
        if not (archive.folder / name).exists():  # an earlier version kept the newest only
            _write_as(archive.folder, name, marker, archive.owner)
    return wrong


def holds(path: Path, marker: Marker) -> bool:
    """Whether this file holds exactly this marker."""
    try:
        return read_file(path) == marker
    except (OSError, ValueError):
        return False


def _rows(folder: Path) -> list[Path]:
    return [*folder.glob("audit*.hashes"), *folder.glob("audit-*.unproved")]


def _write_as(folder: Path, name: str, marker: Marker, owner: str = "") -> None:
    if (folder / name).is_dir():  # no file can be renamed over it
        raise IsADirectoryError(errno.EISDIR, "a folder stands where the marker belongs", name)
    with durable_file(folder / name, folder / f".{name}.{owner}.part") as file:
        _write(file, marker.pack())
    _sync(folder)


def _leave_marker(log: Segments, made: Marker, archive: Archive) -> None:
    """Make the log begin at the marker. Raises OSError; then the log begins where it did before."""
    archive_marker(archive, made)
    row = row_path(log.folder, made.first)
    file = _made_anew(row)
    try:
        # Entries that count only: others are being appended, and may fail and be taken back.
        done = log.hashes.copy_from(made.first, log.size, file, 0)

        def commit() -> None:
            log.hashes.copy_from(made.first, log.size, file, done)  # what was appended meanwhile
            os.fsync(file)
            write_marker(log.folder, made)

        log.begin_at(made, commit)
    finally:
        os.close(file)


def _copy(source: Path, target: int) -> None:
    with source.open("rb") as stream:
        while data := stream.read(_CHUNK):
            _write(target, data)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _made_anew(path: Path) -> int:
    """A new, open, empty file; an older one of that name is unlinked, never written to. Raises OSError."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _copy_of(path: Path, source: Path) -> Iterator[io.BufferedReader]:
    """The archive's copy of `source`. Raises NotArchived when it is no file of its own, OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        found, original = os.fstat(stream.fileno()), source.stat()
        same = (found.st_dev, found.st_ino) == (original.st_dev, original.st_ino)
        if same or not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise NotArchived(f"{path.name} in the archive is not a file of its own")
        yield stream


def _read_again(path: Path, source: Path, verifier: Verifier, frontier: Frontier) -> Moved:
    """Check a stored segment line by line; returns its row for the marker. Raises NotArchived, OSError."""
    first, digest = verifier.size, hashlib.sha256()
    try:
        with _copy_of(path, source) as stream:
            for line in stream:
                verifier.check(line)
                frontier.add(leaf_hash(line))
                digest.update(line)
    except (Tampered, MissingKey) as fault:
        raise NotArchived(f"{path.name} in the archive: {fault}") from None
    return Moved(path.name, first, digest.hexdigest())


def _sha256_of(path: Path, source: Path) -> str:
    with _copy_of(path, source) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
