"""Whole segments below a signed checkpoint go to another folder; nothing is lost, whenever it fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.audit.duties.retention import Retention
from services.audit.log import archiving
from services.audit.log.archiving import Archive, NotArchived
from services.audit.log.query import Filter, ascending, descending
from services.audit.log.repair import mend
from services.audit.log.segments import Archived, Segments
from services.audit.proofs.prove import prove_entry, prove_growth
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log import stored_hashes
from strongbox.audit_log.chain import Entry, Verifier, link
from strongbox.audit_log.checkpoint import Checkpoint, sign
from strongbox.audit_log.key_file import format_keys
from strongbox.audit_log.merkle import Frontier, leaf_hash
from strongbox.audit_log.scan import read_file
from strongbox.audit_log.stored_hashes import Hashes, row_path
from strongbox.audit_log.verify_command import main
from strongbox.config import require_apart
from strongbox.crypto.ed25519 import to_pem
from tests.services.audit.log.test_query import LATER
from tests.services.audit.logs import KEYS, chain, entry
from tests.services.audit.producers import ORIGIN, SIGNING
from tests.services.audit.test_file_faults import CALLS, Failing

ENTRIES = chain(900)
LINES = [one.line() for one in ENTRIES]
LIMIT = 50_000  # bytes a segment: about 108 entries


def note_of(size: int) -> str:
    return sign(Checkpoint(ORIGIN, size, root_over(LINES[:size])), SIGNING)


def root_over(lines: list[bytes]) -> bytes:
    frontier = Frontier()
    for line in lines:
        frontier.add(leaf_hash(line))
    return frontier.root()


def log_of(folder: Path, size: int = 800) -> Segments:
    log = Segments(folder, segment_bytes=LIMIT)
    log.append(ENTRIES[:size])
    return log


def archive_of(folder: Path) -> Archive:
    return Archive(folder / "archive", "node-1")


def require_whole(log: Segments, size: int) -> None:
    """Every line that is kept, every proof among them, and nothing below."""
    assert log.damage is None and log.size == size
    assert list(log.read(log.first)) == LINES[log.first : size]
    assert log.hmac_at(log.first) == ENTRIES[log.first - 1].hmac and log.head == ENTRIES[size - 1].hmac
    for index in (log.first, log.first + 1, max(log.first, 511), max(log.first, 512), size - 1):
        prove_entry(log, index, size)
        assert prove_growth(log, index, size).root == Frontier.of(index, log.hashes.read).root()
    for read in (lambda: list(log.read(log.first - 1)), lambda: prove_entry(log, 3, size)):
        with pytest.raises(Archived):
            read()


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


@pytest.mark.parametrize("change", ["first", "prev_hmac", "term", "not JSON", "gone"])
def test_a_marker_that_somebody_changed_is_not_believed(tmp_path: Path, change: str) -> None:
    log = log_of(tmp_path / "log")
    archive_of(tmp_path).move(log, log.firsts[3], KEYS, note_of(800))
    file = tmp_path / "log" / markers.NAME
    text = file.read_bytes()
    edits = {
        "first": text.replace(b'"first":%d' % log.first, b'"first":%d' % (log.first + 256), 1),
        "prev_hmac": text.replace(
            b'"prev_hmac":"' + log.marker.prev_hmac.encode(), b'"prev_hmac":"' + b"0" * 64
        ),
        "term": text.replace(b'"term":1', b'"term":2', 1),
        "not JSON": text[:-9],
    }
    file.unlink() if change == "gone" else file.write_bytes(edits[change])
    opened = Segments(tmp_path / "log", segment_bytes=LIMIT)
    if opened.damage is None:
        assert not opened.marker.is_ours({1: KEYS[1], 2: KEYS[1]})
    assert mend(opened, {1: KEYS[1], 2: KEYS[1]})
    assert (opened.size, opened.first, opened.damage) == (0, 0, None)
    assert list((tmp_path / "log").glob("*.damaged-1"))  # set aside, not lost


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


def test_archive_and_rest_verify_together_and_the_rest_from_its_marker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_of(tmp_path / "log")
    archive_of(tmp_path).move(log, log.firsts[3], KEYS, note_of(700))
    archived = sorted(map(str, (tmp_path / "archive").glob("*.jsonl")))
    rest = sorted(map(str, (tmp_path / "log").glob("*.jsonl")))
    for name, text in {"key": format_keys(KEYS), "pem": to_pem(SIGNING.public), "old": note_of(9)}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "new").write_text(note_of(800))
    keys, public = ["--key-file", str(tmp_path / "key")], ["--public-key", str(tmp_path / "pem")]
    old, new = ([*public, "--checkpoint", str(tmp_path / name)] for name in ("old", "new"))
    for proofs in ([], keys, old, new, [*keys, *new]):
        assert main([*archived, *rest, *proofs]) == 0, proofs
        assert "intact: 800 entries, head" in capsys.readouterr().out
    for proofs in ([], keys, new, [*keys, *new]):
        assert main([*rest, *proofs]) == 0, proofs
        assert f"the first {log.first} are archived and not checked" in capsys.readouterr().out
    assert main([*rest, *old]) == 2
    assert "needs the archive" in capsys.readouterr().err
    # one of them not moved away yet
    (tmp_path / "log" / Path(archived[2]).name).write_bytes(Path(archived[2]).read_bytes())
    assert main([*archived, *sorted(map(str, (tmp_path / "log").glob("*.jsonl"))), *keys]) == 0
    assert main([*archived[:2], *rest]) == 1  # a segment in between is missing
    assert main(archived) == 0 and main(archived + new) == 1  # the archive alone is a shorter log
    file = tmp_path / "log" / markers.NAME
    file.write_bytes(file.read_bytes().replace(b'"mac":"', b'"mac":"0')[:-4] + b'"}\n')
    assert main([*rest, *keys]) == 1


def test_logs_of_several_replicas_are_told_apart_though_their_files_have_the_same_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is longer, one has archived: none goes on with another, and none is skipped for being the same."""
    (tmp_path / "key").write_text(format_keys(KEYS))
    for name, size in {"one": 700, "two": 800, "three": 800}.items():
        log_of(tmp_path / name, size)
    for name in ("four", "five"):
        log = log_of(tmp_path / name)
        Archive(tmp_path / "archive", name).move(log, log.firsts[3], KEYS, note_of(700))
    names = ("one", "two", "three", "four", "five")
    files = [str(file) for name in names for file in sorted((tmp_path / name).glob("*.jsonl"))]
    assert main([*files, "--key-file", str(tmp_path / "key")]) == 0
    said = capsys.readouterr().out
    assert (said.count("intact: 700 entries"), said.count("intact: 800 entries")) == (1, 4), said


def test_a_marker_that_is_not_signed_yet_is_no_sign_of_tampering(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_of(tmp_path / "log")
    archive_of(tmp_path).move(log, log.firsts[3], KEYS, note_of(700))
    file = tmp_path / "log" / markers.NAME
    made_anew = replace(read_file(file), checkpoint="").signed(KEYS)
    for name in (markers.NAME, markers.COPY):
        (tmp_path / "log" / name).write_bytes(made_anew.pack())
    (tmp_path / "pem").write_text(to_pem(SIGNING.public))
    (tmp_path / "new").write_text(note_of(800))
    proofs = ["--public-key", str(tmp_path / "pem"), "--checkpoint", str(tmp_path / "new")]
    rest = sorted(map(str, (tmp_path / "log").glob("*.jsonl")))
    assert main([*rest, *proofs]) == 2
    assert "name the archive's files" in capsys.readouterr().err
    assert main([*sorted(map(str, (tmp_path / "archive").glob("*.jsonl"))), *rest, *proofs]) == 0


async def test_a_marker_that_nobody_has_confirmed_yet_does_not_replace_the_good_copy(tmp_path: Path) -> None:
    """One digit of it is wrong, and the process has just started, perhaps while the cluster is sealed."""
    log = log_of(tmp_path / "log")
    archive_of(tmp_path).move(log, log.firsts[3], KEYS, note_of(700))
    file, copy = tmp_path / "log" / markers.NAME, tmp_path / "log" / markers.COPY
    good = copy.read_bytes()
    file.write_bytes(_other_digit(good))
    replica = SimpleNamespace(
        log=Segments(tmp_path / "log", segment_bytes=LIMIT), healthy=True, has_begun=False
    )
    assert replica.log.damage is None
    keep = Retention(cast("Any", None), cast("Any", replica), cast("Any", None), archive_of(tmp_path))
    await keep.look()
    assert copy.read_bytes() == good


def _other_digit(marker: bytes) -> bytes:
    place = marker.index(b'"mac":"') + 7
    return marker[:place] + (b"0" if marker[place : place + 1] != b"0" else b"1") + marker[place + 1 :]


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
