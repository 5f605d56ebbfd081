"""Each call to the file system fails in turn; what is on disk afterwards is a log, and all of it comes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.audit.log.repair import mend, set_aside
from services.audit.log.segments import Segments
from strongbox.audit_log.chain import Verifier
from strongbox.audit_log.merkle import Frontier, leaf_hash
from tests.services.audit.logs import KEYS, chain

ENTRIES = chain(60)
LIMIT = 6000  # bytes a segment: a dozen entries
CALLS = ("open", "write", "pwrite", "fsync", "ftruncate", "truncate", "fstat", "rename")


class Failing:
    """Counts the calls that change something, and has the one of this number fail (0: none)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, calls: Sequence[str] = CALLS) -> None:
        self.count, self._number = 0, number
        for name in calls:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self._number:
                if name in ("write", "pwrite") and len(arguments[1]) > 1:  # a part of it gets there
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], *arguments[2:])
                raise OSError(errno.EIO, "Input/output error", name)
            return real(*arguments, **named)

        return call


def write_all(log: Segments, start: int) -> None:
    for first in range(start, 60, 7):
        log.append(ENTRIES[first : min(60, first + 7)])


def fsck(folder: Path, least: int) -> Segments:
    """What a new process finds: an intact log of `least` entries or more, with all its hashes."""
    log = Segments(folder, segment_bytes=LIMIT)
    assert log.damage is None and least <= log.size
    verifier, frontier = Verifier(KEYS), Frontier()
    for line in log.read(0):
        verifier.check(line)
        frontier.add(leaf_hash(line))
    assert (verifier.size, verifier.head) == (log.size, log.head)
    assert log.hashes.root(log.size) == frontier.root()
    return log


def test_a_failed_call_while_writing_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        folder, durable, failed = tmp_path / str(number), 0, False
        with pytest.MonkeyPatch.context() as patch:
            log = Segments(folder, segment_bytes=LIMIT)
            failing = Failing(patch, number)
            try:
                write_all(log, 0)
            except OSError:
                failed, durable = True, log.size
            if not failed:
                break
        if number % 2:  # the process goes on, once the disk works again
            log.reopen()
        else:  # or it died
            log.close()
            log = fsck(folder, durable)
        assert log.size >= durable
        write_all(log, log.size)
        log.close()
        whole = fsck(folder, 60)
        assert list(whole.read(0)) == [one.line() for one in ENTRIES]
        whole.close()
    assert number > 60 and failing.count < number


def test_a_failed_call_while_mending_leaves_what_can_be_mended(tmp_path: Path) -> None:
    number, failed = 0, True
    while failed:
        number += 1
        folder, failed = tmp_path / str(number), False
        log = Segments(folder, segment_bytes=LIMIT)
        write_all(log, 0)
        log.close()
        file = log.path(2)
        file.write_bytes(file.read_bytes().replace(b"alice", b"mally", 2))
        bad = log.firsts[2]
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, number)
            with contextlib.suppress(OSError):
                opened = Segments(folder, segment_bytes=LIMIT)
                mend(opened, KEYS)
            failed = failing.count >= number
        again = Segments(folder, segment_bytes=LIMIT)
        if again.damage:
            mend(again, KEYS)
        again.close()
        log = fsck(folder, 0)
        assert log.size <= bad
        write_all(log, log.size)
        assert list(fsck(folder, 60).read(0)) == [one.line() for one in ENTRIES]
    assert number > 10


@pytest.mark.parametrize("index", [0, 1, 12, 13, 30, 59, 60])
def test_setting_aside_keeps_exactly_the_entries_before(tmp_path: Path, index: int) -> None:
    log = Segments(tmp_path, segment_bytes=LIMIT)
    write_all(log, 0)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.jsonl")}
    aside = set_aside(log, index)
    log.load()
    assert list(log.read(0)) == [one.line() for one in ENTRIES[:index]]
    assert {name.split(".")[0] for name in aside} <= {name.split(".")[0] for name in before}
    for name in aside:
        assert (tmp_path / name).read_bytes() == before[name.split(".")[0] + ".jsonl"]


def test_an_append_after_a_failed_reopen_goes_on_where_the_log_ends(tmp_path: Path) -> None:
    log = Segments(tmp_path, segment_bytes=LIMIT)
    log.append(ENTRIES[:5])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _failing)
        for attempt in (lambda: log.append(ENTRIES[5:8]), log.reopen):
            with pytest.raises(OSError):
                attempt()
    with pytest.raises(OSError):  # of another's, who did not see that the log ends elsewhere
        log.append(ENTRIES[9:12])
    log.append(ENTRIES[5:8])
    log.close()
    whole = fsck(tmp_path, 8)
    assert list(whole.read(0)) == [one.line() for one in ENTRIES[:8]]
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    whole.close()


def _failing(_: int) -> None:
    raise OSError(errno.EIO, "Input/output error")
