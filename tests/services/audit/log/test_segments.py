"""The log on disk, without etcd."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from services.audit.log.segments import Broken, Segments
from tests.services.audit.logs import chain

ENTRIES = chain(700)


def test_segments_are_cut_at_the_same_places_however_entries_arrive(tmp_path: Path) -> None:
    for name, step in (("a", 1), ("b", 7), ("c", 700)):
        log = Segments(tmp_path / name, segment_bytes=10_000)
        for start in range(0, 700, step):
            log.append(ENTRIES[start : start + step])
        log.close()
    files = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    lengths = [len(text) for name, text in files.items() if name.endswith(".jsonl")]
    assert len(lengths) > 20 and all(0 < length <= 10_000 for length in lengths)
    for name in "bc":
        assert {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} == files


def test_reading_from_any_index_gives_the_rest(tmp_path: Path) -> None:
    log = Segments(tmp_path, segment_bytes=10_000)
    log.append(ENTRIES)
    for reopened in (log, Segments(tmp_path, segment_bytes=10_000)):
        assert reopened.size == 700 and reopened.last == ENTRIES[-1]
        for index in (0, 1, 255, 256, 257, 699, 700, 5000):
            assert list(reopened.read(index)) == [one.line() for one in ENTRIES[index:]]
        assert reopened.hmac_at(300) == ENTRIES[299].hmac
        assert reopened.hmac_at(0) == "0" * 64
        with pytest.raises(IndexError):
            reopened.hmac_at(701)


@pytest.mark.parametrize("keep", [0, 1, 200])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, keep: int) -> None:
    log = Segments(tmp_path)
    log.append(ENTRIES[:3])
    log.close()
    file = tmp_path / "audit-000000.jsonl"
    file.write_bytes(file.read_bytes() + ENTRIES[3].line()[:keep])
    log = Segments(tmp_path)
    log.append(ENTRIES[3:5])
    assert list(log.read(0)) == [one.line() for one in ENTRIES[:5]]


def test_a_cut_segment_in_the_middle_is_damage(tmp_path: Path) -> None:
    log = Segments(tmp_path, segment_bytes=10_000)
    log.append(ENTRIES)
    first_of_the_next = log.firsts[4]
    file = tmp_path / "audit-000003.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    damage = Segments(tmp_path, segment_bytes=10_000).damage
    assert damage is not None and damage.entry == first_of_the_next - 1


def test_a_removed_segment_in_the_middle_is_damage(tmp_path: Path) -> None:
    log = Segments(tmp_path, segment_bytes=10_000)
    log.append(ENTRIES)
    for segment in (5, 0):
        log.path(segment).rename(tmp_path / f"gone-{segment}")
        opened = Segments(tmp_path, segment_bytes=10_000)
        assert opened.damage is not None and opened.damage.entry == opened.size == log.firsts[segment]
        with pytest.raises(Broken):
            opened.append(ENTRIES[:1])


def test_looking_at_a_log_that_waits_to_be_mended_finds_nothing_new(tmp_path: Path) -> None:
    log = Segments(tmp_path)
    log.append(ENTRIES[:3])
    file = tmp_path / "audit-000000.jsonl"
    file.write_bytes(file.read_bytes().replace(b"alice", b"mally", 1))
    with pytest.raises(Broken):
        log.check()
    opened = Segments(tmp_path)
    assert opened.damage is not None
    opened.check()
    with pytest.raises(Broken):
        opened.append(ENTRIES[3:4])


def test_nothing_is_appended_to_a_file_somebody_else_changed(tmp_path: Path) -> None:
    log = Segments(tmp_path)
    log.append(ENTRIES[:3])
    (tmp_path / "audit-000000.jsonl").unlink()
    with pytest.raises(Broken):
        log.append(ENTRIES[3:4])
    assert log.size == 3


def test_a_write_that_fails_half_way_is_made_good_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Segments(tmp_path)
    log.append(ENTRIES[:3])
    real_write, room = os.write, [100]

    def write(file: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(file, data[: room.pop()])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        log.append(ENTRIES[3:6])
    assert log.size == 3
    monkeypatch.undo()
    log.check()  # half a line is no damage: it is what `reopen` is for
    log.reopen()
    log.append(ENTRIES[3:6])
    assert list(Segments(tmp_path).read(0)) == [one.line() for one in ENTRIES[:6]]


def test_a_line_and_its_hash_changed_together_are_noticed_at_the_next_look(tmp_path: Path) -> None:
    log = Segments(tmp_path / "log", segment_bytes=10_000)
    log.append(ENTRIES)
    forged = Segments(tmp_path / "forged", segment_bytes=10_000)
    changed = replace(ENTRIES[30], accessor="accessor-of-mally")
    forged.append([*ENTRIES[:30], changed, *ENTRIES[31:]])
    for name in (log.path(log.places.of(30).segment).name, "audit.hashes"):
        with (tmp_path / "log" / name).open("r+b") as file:
            file.write((tmp_path / "forged" / name).read_bytes())
    with pytest.raises(Broken, match="hashes"):
        log.check()


def test_a_file_that_was_only_touched_is_no_damage(tmp_path: Path) -> None:
    log = Segments(tmp_path, segment_bytes=10_000)
    log.append(ENTRIES)
    for file in (log.path(0), log.path(log.places.of(650).segment)):
        os.utime(file)
    log.check()
    log.append(chain(701)[700:])
