"""Where a log begins whose marker is lost, when peers are asked: what is believed, and what is had again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from services.audit.log.find_beginning import Copies, find_beginning
from services.audit.log.repair import mend
from services.audit.log.segments import Segments
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Marker
from strongbox.audit_log.merkle import Frontier, leaf_hash
from strongbox.audit_log.stored_hashes import row_path
from strongbox.store.etcd.errors import Unavailable
from tests.services.audit.log.archived_logs import (
    ENTRIES,
    LIMIT,
    LINES,
    archive_of,
    archived,
    found_first,
    hide,
    lines_in,
    log_of,
    require_whole,
    require_without_proofs,
    start,
)
from tests.services.audit.logs import KEYS


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
