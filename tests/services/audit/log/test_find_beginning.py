"""A marker that is damaged or lost is found again, or done without; never is the log given up for it."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.audit.duties.retention import LOST, Retention
from services.audit.log.archiving import Archive, keep_copies, write_marker
from services.audit.log.find_beginning import NO_COPIES, Copies, fault_of, find, find_beginning
from services.audit.log.repair import mend, prove_again, put_back
from services.audit.log.segments import Segments
from services.audit.proofs.prove import prove_entry
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Archived, Marker, Unproven
from strongbox.audit_log.chain import Keys, parse_line
from strongbox.audit_log.key_file import format_keys
from strongbox.audit_log.merkle import Frontier, leaf_hash
from strongbox.audit_log.stored_hashes import row_path
from strongbox.audit_log.verify_command import main
from strongbox.store.etcd.errors import Unavailable
from tests.services.audit.log.test_archiving import (
    ENTRIES,
    LIMIT,
    LINES,
    archive_of,
    log_of,
    note_of,
    require_whole,
)
from tests.services.audit.logs import KEYS, chain
from tests.services.audit.producers import audit_keys

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


def archived(folder: Path, segment: int = 3) -> tuple[Segments, Archive]:
    """A log of 800 entries of which the segments below `segment` are archived."""
    log, archive = log_of(folder / "log"), archive_of(folder)
    archive.move(log, log.firsts[segment], KEYS, note_of(800))
    log.close()
    return log, archive


def start(
    folder: Path, copies: Copies = NO_COPIES, keys: Keys = KEYS, *, is_trimmed: bool = False
) -> tuple[Segments, str]:
    """What a start makes of the log, and why it would check every HMAC."""
    log = Segments(folder, segment_bytes=LIMIT)
    why = asyncio.run(find_beginning(log, keys, copies, lambda _: None, is_trimmed=is_trimmed))
    if why:
        assert mend(log, keys) == ""
    return log, why


def lines_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.glob("*.jsonl")))


def require_without_proofs(log: Segments, first: int, size: int) -> None:
    """Every line that is here is read, and grows; nothing is proved by hashes that are not known."""
    assert log.damage is None and (log.first, log.size) == (first, size) and log.stand_in
    assert list(log.read(first)) == LINES[first:size] and log.head == ENTRIES[size - 1].hmac
    log.check()
    for refused in (lambda: log.hashes.root(size), lambda: prove_entry(log, size - 1, size)):
        with pytest.raises(Unproven):
            refused()
    with pytest.raises(Archived):
        list(log.read(first - 1))


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


def hide(archive: Path, how: str) -> None:
    if how == "not there":
        archive.rename(archive.with_name("elsewhere"))
    elif how == "without its copies":
        for file in (*archive.glob("*.archived"), archive / markers.NAME):
            file.unlink(missing_ok=True)


@pytest.mark.parametrize("damaged", [markers.NAME, markers.COPY])
def test_a_disk_that_is_full_while_a_file_is_restored_does_not_cost_the_good_one(
    tmp_path: Path, damaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive = archived(tmp_path)
    marker = log.marker
    hide(archive.folder, "not there")
    opened = Segments(log.folder, segment_bytes=LIMIT)
    (log.folder / damaged).write_bytes(b"")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("services.audit.log.repair.write_marker", full)
        with pytest.raises(OSError, match="no space"):
            put_back(opened, marker)
    opened.close()
    found, why = start(log.folder, Copies(archive.folder))
    assert (found.marker, found.stand_in, why) == (marker, None, "")
    require_whole(found, 800)


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


def test_what_a_peer_says_is_believed_if_it_fits_and_proves_itself(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    marker, told = log.marker, list[bytes | None]()
    hide(archive.folder, "not there")

    async def ask() -> list[bytes | None]:
        return told

    others = [
        replace(marker, mac="0" * 64),  # nobody's
        replace(marker, prev_hmac="0" * 64).signed(KEYS),  # of another history under our own keys
        further_on(marker, 5, found_first(log, 5)),  # hides two segments
    ]
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).unlink()
    for lie in others:
        told[:] = [lie.pack(), b"junk"]
        found, _ = start(log.folder, Copies(archive.folder, ask))
        require_without_proofs(found, marker.first, 800)
        found.close()
    told.append(marker.pack())
    found, _ = start(log.folder, Copies(archive.folder, ask))
    assert found.marker == marker
    require_whole(found, 800)


def further_on(marker: Marker, segment: int, first: int) -> Marker:
    """One of the same log, made with the chain's key, that begins later."""
    frontier = Frontier()
    for line in LINES[:first]:
        frontier.add(leaf_hash(line))
    made = replace(marker, segment=segment, first=first, peaks=frontier.peaks, moved=())
    return replace(made, prev_hmac=ENTRIES[first - 1].hmac).signed(KEYS)


def found_first(log: Segments, segment: int) -> int:
    """The first entry of a segment that is here."""
    return parse_line(log.path(segment).read_bytes().split(b"\n")[0] + b"\n").index


def test_with_all_small_files_gone_the_log_is_kept_unless_a_peer_has_what_is_missing(tmp_path: Path) -> None:
    """Then nothing tells a lost marker from segments that were lost; those a peer would give again."""
    log, archive = archived(tmp_path)
    first, before = log.first, lines_in(log.folder)
    hide(archive.folder, "not there")
    for file in (markers.NAME, markers.COPY, row_path(log.folder, first).name):
        (log.folder / file).unlink()

    told: list[bytes | None] = [b""]  # one that has archived nothing

    async def ask() -> list[bytes | None]:
        return told

    copies = Copies(archive.folder, ask)
    opened = Segments(log.folder, segment_bytes=LIMIT)
    assert asyncio.run(find_beginning(opened, KEYS, copies, lambda _: None, is_trimmed=True)) == ""
    assert opened.damage is not None and opened.stand_in is None  # to be mended, and had again
    told[:] = [None]
    with pytest.raises(Unavailable):  # it is asked again: nothing is decided before it has spoken
        asyncio.run(find_beginning(opened, KEYS, copies, lambda _: None, is_trimmed=True))
    opened.close()
    found, _ = start(log.folder, Copies(archive.folder), is_trimmed=True)
    require_without_proofs(found, first, 800)
    assert lines_in(log.folder) == before


@pytest.mark.parametrize(
    "claim", ["a marker that nobody can read", "a marker that nobody made", "a row of hashes"]
)
@pytest.mark.parametrize("with_archive", [False, True])
def test_whoever_deletes_segments_cannot_claim_that_they_were_archived_while_a_peer_has_them(
    tmp_path: Path, claim: str, with_archive: bool
) -> None:
    """Nothing was archived: a file of no worth beside the log must not keep this replica without them."""
    log, archive = log_of(tmp_path / "log"), archive_of(tmp_path)
    log.close()
    if with_archive:
        archive.folder.mkdir()
    first = found_first(log, 3)
    for segment in range(3):
        log.path(segment).unlink()
    false = replace(markers.without_hashes(first, 3, ENTRIES[first - 1].hmac, 1), mac="0" * 64)
    name, content = {
        "a marker that nobody can read": (markers.NAME, b"x"),
        "a marker that nobody made": (markers.COPY, false.pack()),
        "a row of hashes": (row_path(log.folder, first).name, b""),
    }[claim]
    (log.folder / name).write_bytes(content)
    told: list[bytes | None] = [b"", None]

    async def ask() -> list[bytes | None]:
        return told

    copies = Copies(archive.folder if with_archive else None, ask)
    opened = Segments(log.folder, segment_bytes=LIMIT)
    assert asyncio.run(find_beginning(opened, KEYS, copies, lambda _: None, is_trimmed=True)) == ""
    assert opened.damage is not None and opened.stand_in is None
    assert mend(opened, KEYS)
    assert (opened.first, opened.size, opened.damage) == (0, 0, None)  # to be had again, from the first on
    opened.close()


def test_what_the_archive_has_is_not_asked_of_peers(tmp_path: Path) -> None:
    """They may be behind with archiving; the log is not given up for that."""
    log, archive = archived(tmp_path)
    hide(archive.folder, "without its copies")
    (archive.folder / log.path(0).name).unlink()  # so that no marker can be made anew
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).write_bytes(b"")

    async def ask() -> list[bytes | None]:
        return [b""]

    found, _ = start(log.folder, Copies(archive.folder, ask), is_trimmed=True)
    require_without_proofs(found, log.first, 800)


def test_a_segment_that_is_missing_is_no_lost_marker(tmp_path: Path) -> None:
    """The marker is right and says so: what is missing is had again from a peer, as ever."""
    log, archive = archived(tmp_path)
    log.path(3).unlink()

    async def ask() -> list[bytes | None]:
        return [log.marker.pack()]

    opened = Segments(log.folder, segment_bytes=LIMIT)
    copies = Copies(archive.folder, ask)
    assert asyncio.run(find_beginning(opened, KEYS, copies, lambda _: None, is_trimmed=True)) == ""
    assert opened.damage is not None and opened.stand_in is None and opened.marker == log.marker


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


def test_files_of_the_marker_are_written_anew_while_it_is_known(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    log = Segments(log.folder, segment_bytes=LIMIT)
    assert keep_copies(log, archive) == []
    right = (log.folder / markers.NAME).read_bytes()
    (log.folder / markers.NAME).write_bytes(b"")
    (log.folder / markers.COPY).unlink()
    (archive.folder / markers.archived_name(log.first)).unlink()
    assert keep_copies(log, archive) == [markers.COPY, markers.NAME]
    places = [
        log.folder / markers.NAME,
        log.folder / markers.COPY,
        archive.folder / markers.archived_name(log.first),
    ]
    assert [place.read_bytes() for place in places] == [right] * 3
    hide(archive.folder, "not there")
    assert keep_copies(log, archive) == [] and not archive.folder.exists()


def test_what_is_left_is_verified_from_the_copy_of_its_marker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, _ = archived(tmp_path)
    (log.folder / markers.NAME).write_bytes(b"")
    (tmp_path / "key").write_text(format_keys(KEYS))
    files = sorted(map(str, log.folder.glob("*.jsonl")))
    assert main([*files, "--key-file", str(tmp_path / "key")]) == 0
    assert f"the first {log.first} are archived and not checked" in capsys.readouterr().out


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


def test_no_marker_without_a_mac_is_one() -> None:
    with pytest.raises(ValueError, match="marker"):
        markers.parse(Marker(1, 1, "0" * 64, 1, (bytes(32),)).pack())


async def test_a_running_replica_says_that_its_marker_is_lost_and_looks_on(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    for name in (markers.NAME, markers.COPY):
        (log.folder / name).write_bytes(b"")
    hide(archive.folder, "not there")
    found = Segments(log.folder, segment_bytes=LIMIT)
    assert await find_beginning(found, KEYS, NO_COPIES, lambda _: None, is_trimmed=True)
    keys = audit_keys()
    await keys.open()
    replica: Any = SimpleNamespace(log=found, healthy=True, has_begun=True, copies=Copies(archive.folder))
    keep = Retention(cast("Any", None), replica, keys)
    await keep.look()
    assert keep.warning == LOST and found.stand_in
    archive.folder.with_name("elsewhere").rename(archive.folder)
    await keep.look()
    assert keep.warning == LOST  # the archive's segments may have to be read: not every five seconds
    keep._looks_at = 0.0
    await keep.look()
    assert not keep.warning
    require_whole(found, 800)
    (log.folder / markers.NAME).unlink()
    await keep.look()
    assert (log.folder / markers.NAME).read_bytes() == log.marker.pack()
