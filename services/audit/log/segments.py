"""The log on disk: `audit-000000.jsonl`, `audit-000001.jsonl`, … in one folder.

* Lines are appended in one write and fsynced before they count; the folder is fsynced for a new file's name.
* A line that would make a segment larger than 64 MiB begins the next one: this depends on the lines alone, so
  all replicas cut at the same places, and there is never an empty next file.
* Where segments were archived, the log begins at its marker (`archive_marker`, `archiving`): reading below it
  raises `Archived`.
* What opening finds is in `scan`; while there is damage nothing is appended.
* A file that is replaced, removed, cut, grown or rewritten while we run is noticed by `check`, whichever
  segment it is, and nothing is appended any more.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from strongbox.audit_log.archive_marker import Archived, Marker
from strongbox.audit_log.chain import Entry, parse_line
from strongbox.audit_log.merkle import leaf_hash
from strongbox.audit_log.scan import Broken, Damage, Look, read_contents, read_marker
from strongbox.audit_log.sparse_index import Places, Stride
from strongbox.audit_log.stored_hashes import Hashes

__all__ = ["Archived", "Broken", "Damage", "Segments"]
SEGMENT_BYTES = 64 << 20


class Segments:
    """One replica's log. Blocking; call it from a thread where that matters. One writer at a time."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open the log, or begin one. Raises OSError."""
        self.folder = folder
        self._limit = segment_bytes
        self._file: int | None = None
        self._lock = threading.Lock()
        self.being_mended = threading.Lock()
        self.stand_in: Marker | None = None  # where it begins while its marker is lost
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.hashes = Hashes(folder, read_marker(folder)[0])
        self.load()

    @property
    def size(self) -> int:
        """How many entries there are, all of them durable."""
        return self._known.size

    @property
    def last(self) -> Entry | None:
        """The newest entry."""
        return self._known.last

    @property
    def head(self) -> str:
        """The newest entry's HMAC, or 64 zeros."""
        return self._known.last.hmac if self._known.last else self.marker.prev_hmac

    @property
    def marker(self) -> Marker:
        """Where the log begins, and what is archived below."""
        return self._known.marker

    @property
    def first(self) -> int:
        """The index of the first entry that is not archived."""
        return self._known.marker.first

    @property
    def kept_bytes(self) -> int:
        """How large the segments are together."""
        return sum(look.size for look in list(self._known.looks.values()))

    @property
    def damage(self) -> Damage | None:
        """What opening found wrong."""
        return self._known.damage

    @property
    def places(self) -> Places:
        """Where entries stand, and their times."""
        return self._known.places

    @property
    def firsts(self) -> Mapping[int, int]:
        """The index of each segment's first entry."""
        return self._known.firsts

    def term_at(self, size: int) -> int:
        """The key term of the entry that follows the first `size`."""
        return max((term for index, term in self._known.announced if index < size), default=self.marker.term)

    def announced(self) -> set[int]:
        """The key terms that entries of this log announce, and all terms up to the marker's."""
        return {*range(self.marker.term + 1), *(term for _, term in self._known.announced)}

    def path(self, segment: int) -> Path:
        """A segment's file."""
        return self._known.path(segment)

    def load(self) -> None:
        """Read everything anew. Raises OSError."""
        self.close_file()
        marker, fault = (self.stand_in, "") if self.stand_in else read_marker(self.folder)
        self.hashes.begin_at(marker)
        self._known = read_contents(self.folder, self.hashes, marker)
        if fault:
            self._known.damage = Damage(0, fault)
        if self._has_segment and self._known.damage is None:
            self._open(self._known.segment)

    @property
    def _has_segment(self) -> bool:
        """Whether there is a file that lines are appended to."""
        return self._known.segment >= self.marker.segment

    def close(self) -> None:
        """Close every file."""
        self.close_file()
        self.hashes.close()

    # writing --------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries, which continue the log, durably. Raises OSError (then `reopen`) or Broken."""
        with self._lock:
            self._check()
            if self._file is None and self._has_segment:
                self._reopen()  # reopening failed too, after a write that failed
            if entries and entries[0].index != self._known.size:
                # An append that a sealing did not wait for came first; the replica begins again and finds its
                # entries.
                raise OSError(errno.EAGAIN, "the log has grown meanwhile")
            try:
                self._append(entries)
            except OSError:
                # Until `reopen` has cut off what the write left, `check` must not take that for damage.
                self.close_file()
                raise

    def _append(self, entries: Sequence[Entry]) -> None:
        pending: list[tuple[bytes, Entry]] = []
        waiting = 0
        for entry in entries:
            line = entry.line()
            place = self._known.offset + waiting
            if self._file is None or (place and place + len(line) > self._limit):
                self._flush(pending)
                self._open(self._known.segment + 1)
                pending, waiting = [], 0
            pending.append((line, entry))
            waiting += len(line)
        self._flush(pending)

    def reopen(self) -> None:
        """After a failed write: cut off what it left, go on from what counts. Raises OSError or Broken."""
        with self._lock:
            self._reopen()

    def _reopen(self) -> None:
        self.close_file()
        known = self._known
        if self._has_segment:
            path = self.path(known.segment)
            if not path.exists() or path.stat().st_size < known.offset:
                raise Broken(f"{path.name} lost what was written")
            os.truncate(path, known.offset)
            self._open(known.segment)
        self.hashes.back_to(known.size)

    def _flush(self, lines: list[tuple[bytes, Entry]]) -> None:
        """Write whole lines and fsync them; only then do they count."""
        if not lines or self._file is None:
            return
        view = memoryview(b"".join(line for line, _ in lines))
        while view:
            view = view[os.write(self._file, view) :]
        os.fsync(self._file)
        self.hashes.extend(line for line, _ in lines)
        look = Look.of(os.fstat(self._file))
        for line, _ in lines:
            self._known.count(line)
        self._known.last = lines[-1][1]
        self._known.looks[self._known.segment] = look

    def _open(self, segment: int) -> None:
        """Open a segment for appending; a new one begins at offset 0. Raises OSError, then closed."""
        self.close_file()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self.path(segment), flags, 0o600)
        try:
            os.fsync(file)
            self.sync_folder()
            look = Look.of(os.fstat(file))
        except OSError:
            os.close(file)
            raise
        if segment != self._known.segment:
            self._known.begin(segment)
        self._file, self._known.looks[segment] = file, look

    def close_file(self) -> None:
        """Close the current segment's file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def begin_at(self, marker: Marker, commit: Callable[[], None]) -> None:
        """Begin at `marker`; `commit` makes that durable, and nothing is appended meanwhile.

        Raises what `commit` does; then the log is as it was.
        """
        with self._lock:
            commit()
            self.hashes.go_on_from(marker)
            known = self._known
            known.marker = marker
            known.places = known.places.beginning_at(marker.first, marker.segment)
            for gone in [segment for segment in known.looks if segment < marker.segment]:
                del known.looks[gone], known.firsts[gone]
            known.announced = [one for one in known.announced if one[0] >= marker.first]

    def take_row(self, marker: Marker, row: Hashes, commit: Callable[[], None]) -> None:
        """Replace the stand-in by `marker` and its row of hashes; `commit` makes the marker durable.

        `row` may lack the newest lines. Raises what `commit` does, OSError; then the log is as it was.
        """
        with self._lock:
            row.extend(islice(self.read(row.size), self.size - row.size))
            commit()
            known, before = self._known, self.hashes
            self.hashes, known.marker, self.stand_in = row, marker, None
            before.close()

    def sync_folder(self) -> None:
        """Make the names of files durable."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # reading --------------------------------------------------------------------------------------

    def read(self, from_index: int) -> Iterator[bytes]:
        """The lines from an index on, as they stood when the reading began.

        Raises OSError, Broken, Archived.
        """
        end = self.size
        if from_index >= end:
            return
        places = self.places  # one object for all of this: archiving replaces it
        if from_index < places.first:
            raise Archived(places.first)
        place, index = places.of(from_index), places.start_of(from_index)
        segment, offset = place.segment, place.offset
        while index < end:
            with self._reading(segment) as stream:
                stream.seek(offset)
                for line in stream:
                    if index >= end:
                        return
                    if index >= from_index:
                        yield line
                    index += 1
            segment, offset = segment + 1, 0
            if index < end and segment > self._known.segment:
                raise Broken(f"the log ends at entry {index}, not at {end}")

    def _reading(self, segment: int) -> BinaryIO:
        try:
            return self.path(segment).open("rb")
        except FileNotFoundError:
            if segment < self.marker.segment:  # since the reading began
                raise Archived(self.first) from None
            raise

    def stride_of(self, index: int) -> Stride:
        """What is known of the stride that an entry is in. Raises IndexError, Archived."""
        places = self.places
        if index < places.first:
            raise Archived(places.first)
        return places.of(index)

    def lines(self, start: int, stop: int) -> list[bytes]:
        """The lines of entries `start` up to `stop` (exclusive). Raises OSError, Broken, Archived."""
        return list(islice(self.read(start), stop - start))

    def hmac_at(self, size: int) -> str:
        """The chain's HMAC when it had `size` entries.

        Raises IndexError when it never had as many, Archived when that is not kept, Broken when the entry
        cannot be read.
        """
        if size == self.first:
            return self.marker.prev_hmac
        if self.last and size == self.size:
            return self.last.hmac
        for line in self.read(size - 1):
            try:
                return parse_line(line).hmac
            except ValueError as error:
                raise Broken(f"entry {size - 1} cannot be read: {error}") from None
        raise IndexError(size)

    # checking -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise Broken unless every file is still the one we wrote, as we left it.

        Does nothing while the log is damaged or being mended. After an append that failed, lines are compared
        once `reopen` has taken back what it left in the row of hashes.
        """
        if self.damage or not self.being_mended.acquire(blocking=False):
            return
        try:
            with self._lock:
                self._check()
                for segment in range(self.marker.segment, self._known.segment):
                    self._require_untouched(segment)
        finally:
            self.being_mended.release()

    def _check(self) -> None:
        if self.damage:
            raise Broken(self.damage.reason)
        if self._file is None:
            return
        self._require_untouched(self._known.segment)
        if not os.access(self.path(self._known.segment), os.W_OK):
            raise Broken(f"{self.path(self._known.segment).name} cannot be written")

    def _require_untouched(self, segment: int) -> None:
        path, left = self.path(segment), self._known.looks[segment]
        try:
            found = Look.of(path.stat())
        except OSError as error:
            raise Broken(f"{path.name} cannot be looked at: {error.strerror}") from error
        if (found.device, found.inode) != (left.device, left.inode):
            raise Broken(f"{path.name} was replaced")
        if found.size != left.size:
            raise Broken(f"{path.name} has {found.size} bytes, not the {left.size} written")
        if (
            found != left and self._file is not None
        ):  # somebody else wrote: perhaps the same bytes, perhaps others
            self._require_lines(segment)
            self._known.looks[segment] = found

    def _require_lines(self, segment: int) -> None:
        if not self.hashes.is_as_written():  # else a line and its hash could be changed together
            raise Broken("the hashes beside the log were changed")
        index = self.firsts[segment]
        with self.path(segment).open("rb") as stream:
            for line in stream:
                if leaf_hash(line) != self.hashes.leaf(index):
                    raise Broken(f"entry {index} in {self.path(segment).name} was changed")
                index += 1
