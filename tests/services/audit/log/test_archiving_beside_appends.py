"""Segments are archived beside appends, also vain ones: the new row of hashes has those of entries only."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from services.audit.log import archiving
from services.audit.log.archiving import Archive
from services.audit.log.segments import Segments
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log import stored_hashes
from strongbox.audit_log.chain import Entry, link
from strongbox.audit_log.stored_hashes import Hashes
from tests.services.audit.log.archived_logs import (
    ENTRIES,
    LIMIT,
    LINES,
    archive_of,
    log_of,
    note_of,
    require_whole,
    root_over,
)
from tests.services.audit.logs import KEYS, entry


@pytest.mark.parametrize("fails", ["before its hashes are written", "after"])
def test_an_append_that_fails_beside_it_leaves_no_hash_of_what_was_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """What is appended next is other entries: their hashes stand in the new row."""
    log, archive, others = log_of(tmp_path / "log"), archive_of(tmp_path), other_entries(800, 830)
    mark, begin_at = archiving.archive_marker, Segments.begin_at

    def as_an_append_fails(archive: Archive, made: markers.Marker) -> None:
        mark(archive, made)
        with monkeypatch.context() as patch:
            patch.setattr(*(FAIL_BEFORE if fails.startswith("before") else FAIL_AFTER))
            with pytest.raises(OSError, match="died"):
                log.append(ENTRIES[800:820])

    def as_another_follows(log: Segments, made: markers.Marker, commit: Callable[[], None]) -> None:
        log.reopen()
        log.append(others)
        begin_at(log, made, commit)

    monkeypatch.setattr(archiving, "archive_marker", as_an_append_fails)
    monkeypatch.setattr(Segments, "begin_at", as_another_follows)
    assert archive.move(log, log.firsts[2], KEYS, note_of(800)) == 2
    lines = LINES[:800] + [one.line() for one in others]
    root = root_over(lines)
    for found in (log, Segments(tmp_path / "log", segment_bytes=LIMIT)):
        assert found.damage is None
        assert list(found.read(found.first)) == lines[found.first :]
        assert found.hashes.is_as_written()
        assert found.hashes.root(830) == root


def test_a_marker_is_left_while_an_append_that_failed_is_not_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*FAIL_BEFORE)
        with pytest.raises(OSError, match="died"):
            log.append(ENTRIES[800:820])
    assert archive.move(log, log.firsts[2], KEYS, note_of(800)) == 2
    os.utime(log.path(3))  # somebody touched it: its lines are compared with the row, but not with this one
    log.check()
    log.append(ENTRIES[800:])
    log.check()
    require_whole(log, 900)
    require_whole(Segments(tmp_path / "log", segment_bytes=LIMIT), 900)


def _dies(*_: object) -> int:
    raise OSError(errno.EIO, "died")


def _dies_then(hashes: Hashes, lines: Iterable[bytes], extend: Any = Hashes.extend) -> None:
    extend(hashes, lines)
    _dies()


FAIL_BEFORE = (stored_hashes.os, "pwrite", _dies)
FAIL_AFTER = (Hashes, "extend", _dies_then)


def other_entries(start: int, stop: int) -> list[Entry]:
    """As the chain might have gone on in another way."""
    made = [ENTRIES[start - 1]]
    for index in range(start, stop):
        made.append(link(KEYS[1], made[-1].hmac, entry(index, path="secret/other")))
    return made[1:]
