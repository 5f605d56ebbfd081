"""Mending a damaged log at start: what the chain's keys do not prove is set aside and fetched again.

* The keys decide which line is bad: a line whose hash differs may be right, and the row of hashes wrong.
* Nothing is destroyed. A damaged segment, and those after it, are renamed to `….damaged-<n>` and stay for
  people to look at; the good lines before the damage are written anew. What is missing then comes from the
  outbox, or from a peer, verified line by line.
* A crash at any point leaves a log that is shorter or still damaged, never one with wrong entries that look
  right.
"""

from __future__ import annotations

import os
from itertools import count, islice
from pathlib import Path

import structlog

from services.audit.log.archiving import holds, write_marker
from services.audit.log.segments import Segments
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Marker
from strongbox.audit_log.chain import Keys, Tampered, Verifier
from strongbox.audit_log.stored_hashes import Hashes

_AT_ONCE = 1024  # lines
_log = structlog.get_logger(__name__)


def mend(log: Segments, keys: Keys) -> str:
    """Cut the log back to what verifies; returns what was found, "" when every entry is right. Blocking.

    Raises OSError; MissingKey when a key term is not known. One at a time.
    """
    with log.being_mended:
        return _mend(log, keys)


def _mend(log: Segments, keys: Keys) -> str:
    if log.first and not log.stand_in and not log.marker.is_ours(keys):
        fault: Tampered | None = Tampered(
            0, "the marker of what is archived was not made with the chain's key"
        )
    else:
        fault = first_fault(log, keys)
    if fault is None and (log.damage is None or log.first <= log.damage.entry < log.size):
        log.hashes.clear()
        log.load()
        return ""
    index, reason = (
        (fault.index, fault.reason) if fault else (log.size, log.damage.reason if log.damage else "")
    )
    kept = set_aside(log, index)
    log.load()
    _log.error(
        "the audit log was damaged; what is not proved is set aside", entry=index, why=reason, files=kept
    )
    return f"entry {index}: {reason}"


def first_fault(log: Segments, keys: Keys) -> Tampered | None:
    """The first entry on disk that the keys do not prove. Blocking."""
    verifier = Verifier(keys, log.first, log.marker.prev_hmac, log.marker.term)
    try:
        for line in log.read(log.first):
            verifier.check(line)
    except Tampered as fault:
        return fault
    except OSError as error:
        return Tampered(verifier.size, f"cannot be read: {error.strerror}")
    return None


def set_aside(log: Segments, index: int, why: str = "damaged") -> list[str]:
    """Keep the first `index` entries; rename the segments from there on. Returns the new names.

    An index below the log's first entry sets aside everything, the marker too.
    """
    segments = [segment for segment, start in log.firsts.items() if start <= index]
    first = max(segments, default=0)
    good = index - log.firsts[first] if segments else 0
    part = log.folder / f"audit-{first:06d}.part"
    if good and _copy_lines(log.path(first), part, good):  # nothing wrong with this one
        part.unlink()
        first, good = first + 1, 0
    log.close_file()
    renamed = [
        _rename(path, why)
        for path in sorted(log.folder.glob("audit-*.jsonl"), reverse=True)
        if path >= log.path(first)
    ]
    if index < log.first or not log.first:  # the latter: it cannot be read, or is of another log
        renamed += set_marker_aside(log.folder, why)
    if good:
        part.rename(log.path(first))
    log.sync_folder()
    return renamed


def set_marker_aside(folder: Path, why: str, found: Marker | None = None) -> list[str]:
    """Rename the marker and its copy where they are there and differ from `found`; returns the new names.

    Raises OSError. A right file stays: writing it again may fail, and it may be the last copy.
    """
    files = [folder / name for name in (markers.NAME, markers.COPY)]
    wrong = [path for path in files if os.path.lexists(path) and not (found and holds(path, found))]
    return [_rename(path, why) for path in wrong]


def put_back(log: Segments, marker: Marker) -> None:
    """Make the log begin at this marker, which was found again; other marker files are set aside.

    Blocking. Raises OSError. A crash leaves a file with this marker if there was one, otherwise perhaps none.
    """
    with log.being_mended:
        kept = set_marker_aside(log.folder, "damaged", marker)
        log.sync_folder()
        if marker.first:
            write_marker(log.folder, marker)
        log.stand_in = None
        log.load()
        _remove_rows_of_stand_ins(log.folder)
    _log.error("the marker of what is archived was damaged or lost, and is restored", files=kept)


def do_without(log: Segments, stand_in: Marker) -> None:
    """Make the log begin at a stand-in while its marker is lost; its files stay. Blocking. Raises OSError."""
    with log.being_mended:
        log.stand_in = stand_in
        log.load()
    _log.critical(
        "the marker of what is archived is lost and nothing proves another: what it proved is refused here",
        first_index=stand_in.first,
    )


def prove_again(log: Segments, marker: Marker) -> None:
    """Replace the stand-in by the marker that was found, while the log is in use.

    Blocking: every line is read once. Raises OSError, Broken, Archived; then nothing has changed.
    """
    with log.being_mended:
        row = Hashes(log.folder, marker)

        def commit() -> None:
            set_marker_aside(log.folder, "damaged", marker)
            write_marker(log.folder, marker)

        try:
            row.clear()
            lines = log.read(log.first)
            while some := list(islice(lines, _AT_ONCE)):
                row.extend(some)
            log.take_row(marker, row, commit)
        except BaseException:
            row.close()
            raise
        _remove_rows_of_stand_ins(log.folder)
    _log.error("the marker of what is archived is restored", first_index=marker.first)


def _remove_rows_of_stand_ins(folder: Path) -> None:
    for path in folder.glob("audit-*.unproved"):
        path.unlink()


def cut_back(log: Segments, index: int) -> None:
    """Keep the first `index` entries; what comes after is set aside. Blocking. Raises OSError."""
    with log.being_mended:
        kept = set_aside(log, index, "astray")
        log.load()
    _log.error("the audit log had gone its own way; it is cut back", entry=index, files=kept)


def adopt(log: Segments, marker: Marker) -> None:
    """Make the log begin at a peer's marker, which was checked; what is here is set aside. Blocking.

    Raises OSError. A crash leaves an empty log, or one that begins at the marker and has no entries yet.
    """
    with log.being_mended:
        kept = set_aside(log, 0, "outdated")
        log.stand_in = None
        write_marker(log.folder, marker)
        log.load()
    _log.error("a peer has archived what is missing here: this log begins at its marker", files=kept)


def _copy_lines(source: Path, target: Path, lines: int) -> bool:
    """Copy the first `lines` lines durably; returns whether that is all of the file."""
    with source.open("rb") as stream, target.open("wb") as copy:
        os.chmod(target, 0o600)
        for _ in range(lines):
            copy.write(stream.readline())
        copy.flush()
        os.fsync(copy.fileno())
        return not stream.read(1)


def _rename(path: Path, why: str) -> str:
    for number in count(1):
        aside = path.with_suffix(f".{why}-{number}")
        if not aside.exists():
            path.rename(aside)
            return aside.name
    raise AssertionError("numbers do not end")
