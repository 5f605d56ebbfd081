"""Logs of which the beginning is archived, what a start makes of them, and what they must then hold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.audit.log.archiving import Archive
from services.audit.log.find_beginning import NO_COPIES, Copies, find_beginning
from services.audit.log.repair import mend
from services.audit.log.segments import Archived, Segments
from services.audit.proofs.prove import prove_entry, prove_growth
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Unproven
from strongbox.audit_log.chain import Keys, parse_line
from strongbox.audit_log.checkpoint import Checkpoint, sign
from strongbox.audit_log.merkle import Frontier, leaf_hash
from tests.services.audit.logs import KEYS, chain
from tests.services.audit.producers import ORIGIN, SIGNING

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


def hide(archive: Path, how: str) -> None:
    if how == "not there":
        archive.rename(archive.with_name("elsewhere"))
    elif how == "without its copies":
        for file in (*archive.glob("*.archived"), archive / markers.NAME):
            file.unlink(missing_ok=True)


def found_first(log: Segments, segment: int) -> int:
    """The first entry of a segment that is here."""
    return parse_line(log.path(segment).read_bytes().split(b"\n")[0] + b"\n").index
