"""A marker that is damaged or lost is found again, or done without; never is the log given up for it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.audit.log.archiving import Archive, write_marker
from services.audit.log.find_beginning import NO_COPIES, Copies, fault_of, find, find_beginning
from services.audit.log.repair import mend, prove_again
from services.audit.log.segments import Segments
from strongbox.audit_log import archive_marker as markers
from tests.services.audit.log.archived_logs import (
    ENTRIES,
    LIMIT,
    LINES,
    archived,
    found_first,
    hide,
    lines_in,
    note_of,
    require_whole,
    require_without_proofs,
    start,
)
from tests.services.audit.logs import KEYS, chain

PEAKS = b'"peaks":["'


def flipped(text: bytes, place: int, bit: int = 1) -> bytes:
    return text[:place] + bytes([text[place] ^ bit]) + text[place + 1 :]


def replace_in(file: Path, edit: Callable[[bytes], bytes]) -> None:
    file.write_bytes(edit(file.read_bytes()))


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: replace_in(file, lambda text: text[: len(text) // 2]),
    "cut by its newline": lambda file: replace_in(file, lambda text: text[:-1]),
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": os.unlink,
    "zeroed": lambda file: replace_in(file, lambda text: bytes(len(text))),
    "flipped in first": lambda file: replace_in(file, lambda t: flipped(t, t.index(b'"first":') + 9)),
    "flipped in term": lambda file: replace_in(file, lambda t: flipped(t, t.index(b'"term":') + 7, 2)),
    "flipped in a peak": lambda file: replace_in(file, lambda t: flipped(t, t.index(PEAKS) + 12)),
    "flipped in mac": lambda file: replace_in(file, lambda t: flipped(t, len(t) - 9)),
    "without a mac": lambda file: replace_in(file, lambda t: t[: t.index(b'"mac":"') + 7] + b'"}\n'),
    "a folder": as_folder,
    "a pipe": as_pipe,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("archive_is", ["there", "without its copies", "not there"])
def test_a_damaged_marker_is_restored_from_the_file_beside_it(
    tmp_path: Path, damage: str, archive_is: str
) -> None:
    log, archive = archived(tmp_path)
    before, marker = lines_in(log.folder), log.marker
    hide(archive.folder, archive_is)
    DAMAGES[damage](log.folder / markers.NAME)
    found, why = start(log.folder, Copies(archive.folder))
    assert (found.marker, found.stand_in, why) == (marker, None, "")
    require_whole(found, 800)
    assert lines_in(log.folder) == before and not list(log.folder.glob("*.jsonl.*"))
    assert fault_of(log.folder, marker, KEYS) == ""
    found.append(ENTRIES[800:])
    require_whole(Segments(log.folder, segment_bytes=LIMIT), 900)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("archive_is", ["there", "without its copies", "without its newest", "not there"])
def test_when_both_files_are_damaged_the_archive_says_where_the_log_begins_or_the_log_does_without(
    tmp_path: Path, damage: str, archive_is: str
) -> None:
    log, archive = archived(tmp_path)
    before, marker = lines_in(log.folder), log.marker
    hide(archive.folder, archive_is)
    if archive_is == "without its newest":  # another replica, which is further on, shares the archive
        write_marker(archive.folder, replace(marker, first=marker.first + 999).signed(KEYS))
    for name in (markers.NAME, markers.COPY):
        DAMAGES[damage](log.folder / name)
    found, why = start(log.folder, Copies(archive.folder))
    assert lines_in(log.folder) == before and not list(log.folder.glob("audit-*.damaged-*"))
    if archive_is != "not there":
        assert (found.marker.peaks, found.stand_in, why) == (marker.peaks, None, "")
        require_whole(found, 800)
        require_whole(start(log.folder)[0], 800)  # its files are there again
        return
    assert why
    require_without_proofs(found, marker.first, 800)
    found.append(ENTRIES[800:850])
    found.close()
    found, _ = start(log.folder, Copies(archive.folder))
    require_without_proofs(found, marker.first, 850)
    archive.folder.with_name("elsewhere").rename(archive.folder)
    there = asyncio.run(find(log.folder, KEYS, Copies(archive.folder))).marker
    assert there is not None
    prove_again(found, there)  # while it is in use
    require_whole(found, 850)
    found.append(ENTRIES[850:])
    require_whole(found, 900)
    require_whole(start(log.folder)[0], 900)
    assert not list(log.folder.glob("*.unproved"))


@pytest.mark.parametrize("which", ["its own older one", "another log's", "a later one of the same log"])
def test_a_marker_that_is_not_of_these_segments_is_not_believed(tmp_path: Path, which: str) -> None:
    log, archive = archived(tmp_path, 1)
    older = log.folder.joinpath(markers.NAME).read_bytes()
    log = Segments(log.folder, segment_bytes=LIMIT)
    archive.move(log, log.firsts[3], KEYS, note_of(800))
    before, marker = lines_in(log.folder), log.marker
    log.close()
    other = replace(marker, prev_hmac="0" * 64, segment=9).signed({1: b"k" * 32})
    beyond = replace(marker, segment=99).signed(KEYS)
    text = {
        "its own older one": older,
        "another log's": other.pack(),
        "a later one of the same log": beyond.pack(),
    }
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).write_bytes(text[which])
    found, _ = start(log.folder, Copies(archive.folder))
    assert found.marker == marker
    require_whole(found, 800)
    assert lines_in(log.folder) == before


def test_of_a_log_of_which_nothing_is_gone_yet_no_marker_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after the marker was written and before a segment was removed; then the marker is damaged."""
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "clear", lambda *_: None)
        log, archive = archived(tmp_path)
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).write_bytes(b"{")
    found, why = start(log.folder)
    assert (found.first, found.size, found.damage, why) == (0, 800, None, "")
    assert list(found.read(0)) == LINES[:800]
    archive.move(found, found.firsts[3], KEYS, note_of(800))
    require_whole(found, 800)


def test_a_crash_between_the_removals_costs_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "clear", lambda *_: None)
        log, archive = archived(tmp_path)
    log.path(0).unlink()
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).write_bytes(b"")
    found, _ = start(log.folder, Copies(archive.folder))
    require_whole(found, 800)
    archive.clear(found, KEYS)
    assert not log.path(1).exists() and not log.path(2).exists()


def test_damage_of_the_log_itself_is_found_behind_a_stand_in(tmp_path: Path) -> None:
    """Nothing beside it vouches for its lines then, so every HMAC is checked."""
    log, _ = archived(tmp_path)
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).unlink()
    path, bad = log.path(5), found_first(log, 5)
    path.write_bytes(path.read_bytes().replace(b"alice", b"mally", 1))
    opened = Segments(log.folder, segment_bytes=LIMIT)
    why = asyncio.run(find_beginning(opened, KEYS, NO_COPIES, lambda _: None, is_trimmed=False))
    assert why and mend(opened, KEYS)
    assert bad <= opened.size < 800
    assert list(opened.read(log.first)) == LINES[log.first : opened.size]


def test_an_entry_that_nobody_with_a_key_wrote_stands_in_for_no_marker(tmp_path: Path) -> None:
    log, _ = archived(tmp_path)
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).unlink()
    opened = Segments(log.folder, segment_bytes=LIMIT)
    foreign = {1: b"k" * 32}
    assert asyncio.run(find_beginning(opened, foreign, NO_COPIES, lambda _: None, is_trimmed=True)) == ""
    assert opened.stand_in is None


def test_an_archive_of_another_log_makes_no_marker(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    hide(archive.folder, "without its copies")
    other = chain(400, b"k" * 32)
    (archive.folder / log.path(1).name).write_bytes(b"".join(one.line() for one in other[:100]))
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).unlink()
    began = time.monotonic()
    found, _ = start(log.folder, Copies(archive.folder))
    require_without_proofs(found, log.first, 800)
    (archive.folder / log.path(1).name).unlink()
    os.mkfifo(archive.folder / log.path(1).name)  # nothing is waited for
    assert asyncio.run(find(log.folder, KEYS, Copies(archive.folder))).marker is None
    assert time.monotonic() - began < 30
