"""A segment leaves the log only for a true copy in the archive: a file of its own with the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.audit.log.archiving import Archive, NotArchived
from services.audit.log.segments import Segments
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.stored_hashes import row_path
from strongbox.config import require_apart
from tests.services.audit.log.archived_logs import LIMIT, LINES, archive_of, log_of, note_of, require_whole
from tests.services.audit.logs import KEYS, chain


@pytest.mark.parametrize("what", ["another file", "cut off", "of another log"])
def test_nothing_is_removed_when_the_archive_holds_something_else(tmp_path: Path, what: str) -> None:
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)
    archive.folder.mkdir()
    text = log.path(0).read_bytes()
    other = b"".join(one.line() for one in chain(900, b"k" * 32)[: log.firsts[1]])
    wrong = {"another file": b"mine\n", "cut off": text[:-300], "of another log": other}[what]
    (archive.folder / log.path(0).name).write_bytes(wrong)
    with pytest.raises(NotArchived):
        archive.move(log, 800, KEYS, note_of(800))
    assert log.first == 0 and list(log.read(0)) == LINES[:800]
    assert list(Segments(tmp_path / "log", segment_bytes=LIMIT).read(0)) == LINES[:800]


def test_a_copy_that_is_damaged_later_keeps_the_segment_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after the marker: the segments still stand here, and go only if the archive really has them."""
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "clear", lambda *_: None)
        archive.move(log, log.firsts[2], KEYS, note_of(800))
    log = Segments(tmp_path / "log", segment_bytes=LIMIT)
    require_whole(log, 800)
    copy = archive.folder / log.path(1).name
    whole = copy.read_bytes()
    copy.write_bytes(whole.replace(b"alice", b"mally", 1))
    with pytest.raises(NotArchived):
        archive.clear(log, KEYS)
    assert log.path(0).exists() and log.path(1).read_bytes() == whole
    copy.write_bytes(whole)
    archive.clear(log, KEYS)
    assert not log.path(0).exists() and not log.path(1).exists()


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("when", ["before it is copied", "after the marker"])
def test_a_name_in_the_archive_for_the_segment_itself_is_no_copy(
    tmp_path: Path, link: Callable[[Path, Path], None], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)
    archive.folder.mkdir()
    segment = log.path(0)
    copy = archive.folder / segment.name
    if when == "after the marker":
        with monkeypatch.context() as patch:
            patch.setattr(Archive, "clear", lambda *_: None)
            archive.move(log, log.firsts[2], KEYS, note_of(800))
        copy.unlink()
    link(segment, copy)
    with pytest.raises((NotArchived, OSError)):
        archive.move(log, log.firsts[2], KEYS, note_of(800)) if not log.first else archive.clear(log, KEYS)
    assert segment.read_bytes() == b"".join(LINES[: segment.read_bytes().count(b"\n")]) != b""
    assert not segment.is_symlink()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_unfinished_file_that_names_another_is_replaced_and_not_written_through(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)
    archive.folder.mkdir()
    live = log.path(max(log.firsts))
    before = live.read_bytes()
    for folder, name in (
        (archive.folder, f".{log.path(0).name}.node-1.part"),
        (archive.folder, f".{markers.NAME}.node-1.part"),
        (log.folder, f".{markers.NAME}..part"),
        (log.folder, row_path(log.folder, log.firsts[2]).name),
    ):
        link(live, folder / name)
    assert archive.move(log, log.firsts[2], KEYS, note_of(800)) == 2
    assert live.read_bytes() == before
    require_whole(log, 800)
    require_whole(Segments(tmp_path / "log", segment_bytes=LIMIT), 800)


@pytest.mark.parametrize("place", [".", "log", "log/archive", "another name"])
def test_an_archive_in_the_log_s_own_folder_is_refused_at_start(tmp_path: Path, place: str) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "another name").symlink_to(tmp_path / "log")
    with pytest.raises(ValueError, match="apart"):
        require_apart(tmp_path / place, tmp_path / "log")
    require_apart(tmp_path / "archive", tmp_path / "log")
    require_apart(tmp_path / "log-archive", tmp_path / "log")
