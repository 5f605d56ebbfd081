"""The marker's files: which is believed, and how a right one is kept and written anew."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.audit.duties.retention import LOST, Retention
from services.audit.log.archiving import keep_copies
from services.audit.log.find_beginning import NO_COPIES, Copies, find_beginning
from services.audit.log.repair import mend, put_back
from services.audit.log.segments import Segments
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Marker
from tests.services.audit.log.archived_logs import (
    LIMIT,
    archive_of,
    archived,
    hide,
    log_of,
    note_of,
    require_whole,
    start,
)
from tests.services.audit.logs import KEYS
from tests.services.audit.producers import audit_keys


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


def test_no_marker_without_a_mac_is_one() -> None:
    with pytest.raises(ValueError, match="marker"):
        markers.parse(Marker(1, 1, "0" * 64, 1, (bytes(32),)).pack())


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
