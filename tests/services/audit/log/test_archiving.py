"""Whole segments below a signed checkpoint go to another folder; nothing is lost, whenever it fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from services.audit.log import archiving
from services.audit.log.archiving import Archive, NotArchived
from services.audit.log.query import Filter, ascending, descending
from services.audit.log.repair import mend
from services.audit.log.segments import Archived, Segments
from strongbox.audit_log.chain import Verifier
from strongbox.audit_log.stored_hashes import row_path
from tests.services.audit.log.archived_logs import (
    ENTRIES,
    LIMIT,
    LINES,
    archive_of,
    log_of,
    note_of,
    require_whole,
)
from tests.services.audit.log.test_query import LATER
from tests.services.audit.logs import KEYS
from tests.services.audit.test_file_faults import CALLS, Failing


def test_what_is_kept_is_read_proved_appended_to_and_opened_as_before(tmp_path: Path) -> None:
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "log").glob("*.jsonl")}
    root, below = log.hashes.root(800), log.firsts[4]
    assert archive.move(log, below + 5, KEYS, note_of(800)) == 4
    assert log.first == below and log.hashes.root(800) == root
    require_whole(log, 800)
    log.append(ENTRIES[800:])
    log.check()
    for found in (log, Segments(tmp_path / "log", segment_bytes=LIMIT)):
        require_whole(found, 900)
        assert found.term_at(900) == 1
    there = {file.name: file.read_bytes() for file in (tmp_path / "archive").glob("*.jsonl")}
    left = {file.name: file.read_bytes() for file in (tmp_path / "log").glob("*.jsonl")}
    assert there | left == {**before, **left} and not there.keys() & left.keys()
    assert len(list((tmp_path / "log").glob("*.hashes"))) == 1


def test_it_goes_on_step_by_step_and_never_takes_what_is_not_whole(tmp_path: Path) -> None:
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)
    assert archive.move(log, log.firsts[1] - 1, KEYS, note_of(800)) == 0 and log.first == 0
    for segment in (1, 2, 5):
        archive.move(log, log.firsts[segment], KEYS, note_of(800))
        require_whole(log, 800)
        log = Segments(tmp_path / "log", segment_bytes=LIMIT)
        require_whole(log, 800)
    archive.move(log, 10_000, KEYS, note_of(800))
    assert log.first == log.firsts[max(log.firsts)] < 800  # the segment that is written to stays
    require_whole(log, 800)


def test_pages_end_where_the_archive_begins_and_the_next_call_says_so(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log")
    archive_of(tmp_path).move(log, log.firsts[3], KEYS, note_of(800))
    assert ascending(log, Filter(), log.first, 800, 1000, LATER).lines == LINES[log.first : 800]
    down = descending(log, Filter(), 800, 1000, LATER)
    assert down.lines == LINES[log.first : 800][::-1] and down.next_index == log.first
    with pytest.raises(Archived, match=f"below {log.first}"):
        descending(log, Filter(), log.first, 10, LATER)
    with pytest.raises(Archived):
        ascending(log, Filter(), 5, 800, 10, LATER)


@pytest.mark.parametrize("ends", ["the process goes on", "the process dies"])
def test_each_failed_call_leaves_all_of_it_here_or_all_of_it_archived(tmp_path: Path, ends: str) -> None:
    number, failed = 0, True
    while failed:
        number += 1
        folder, failed = tmp_path / str(number), False
        log, archive = log_of(folder / "log", 400), archive_of(folder)
        below = log.firsts[2]
        with pytest.MonkeyPatch.context() as patch:
            Failing(patch, number, (*CALLS, "unlink", "mkdir"))
            try:
                archive.move(log, below, KEYS, note_of(400))
            except OSError:
                failed = True
        if ends == "the process dies":
            log.close()
            log = Segments(folder / "log", segment_bytes=LIMIT)
        assert log.damage is None and log.first in (0, below)
        log.append(ENTRIES[400:500])
        stored = b"".join(file.read_bytes() for file in sorted(archive.folder.glob("*.jsonl")))
        assert list(log.read(log.first)) == LINES[log.first : 500]
        if log.first:
            assert stored == b"".join(LINES[:below])
        archive.move(log, below, KEYS, note_of(400))  # the next look finishes it
        assert log.first == below and not log.path(0).exists() and not log.path(1).exists()
        for found in (log, Segments(folder / "log", segment_bytes=LIMIT)):
            assert list(found.read(below)) == LINES[below:500]
            found.check()
            found.close()
    assert number > 20


def test_a_changed_entry_above_the_marker_is_mended_back_to_it(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log")
    archive_of(tmp_path).move(log, log.firsts[3], KEYS, note_of(800))
    path = log.path(5)
    path.write_bytes(path.read_bytes().replace(b"alice", b"mally", 1))
    opened = Segments(tmp_path / "log", segment_bytes=LIMIT)
    assert mend(opened, KEYS)
    assert opened.size == log.firsts[5] and opened.first == log.first
    opened.append(ENTRIES[opened.size : 800])
    require_whole(opened, 800)


def test_segments_that_a_crash_left_over_are_removed_before_the_next_are_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next marker names its own segments only."""
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)

    def dies(_: Archive, log: Segments, __: object) -> None:
        if log.first:  # the marker stands, and nothing is removed yet
            raise OSError(errno.EIO, "died")

    with monkeypatch.context() as dying:
        dying.setattr(Archive, "clear", dies)
        with pytest.raises(OSError, match="died"):
            archive.move(log, log.firsts[2], KEYS, note_of(700))
    archive.move(log, log.firsts[4], KEYS, note_of(700))
    assert sorted(file.name for file in (tmp_path / "log").glob("*.jsonl"))[0] == "audit-000004.jsonl"
    # and what stands altered in the archive goes on being told
    again = log_of(tmp_path / "again")
    other = Archive(tmp_path / "other", "node-1")
    with monkeypatch.context() as dying:
        dying.setattr(Archive, "clear", dies)
        with pytest.raises(OSError, match="died"):
            other.move(again, again.firsts[2], KEYS, note_of(700))
    altered = tmp_path / "other" / "audit-000000.jsonl"
    altered.write_bytes(altered.read_bytes().replace(b"alice", b"malic", 1))
    for _ in range(2):
        with pytest.raises(NotArchived):
            other.move(again, again.firsts[4], KEYS, note_of(700))


def test_a_full_archive_leaves_everything_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)

    def no_room(file: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archiving, "_write", no_room)
    with pytest.raises(OSError, match="No space"):
        archive.move(log, 800, KEYS, note_of(800))
    assert log.first == 0
    monkeypatch.undo()
    archive.move(log, log.firsts[2], KEYS, note_of(800))
    require_whole(log, 800)


def test_replicas_may_share_an_archive(tmp_path: Path) -> None:
    for node in ("1", "2"):
        log = log_of(tmp_path / node)
        assert Archive(tmp_path / "archive", node).move(log, log.firsts[2], KEYS, note_of(800)) == 2
        require_whole(log, 800)
    verifier = Verifier(KEYS)
    for file in sorted((tmp_path / "archive").glob("*.jsonl")):
        for line in file.read_bytes().splitlines(keepends=True):
            verifier.check(line)
    assert not [name for name in os.listdir(tmp_path / "archive") if name.endswith(".part")]
    assert row_path(tmp_path, 0).name == "audit.hashes"
