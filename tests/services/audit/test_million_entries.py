"""A million entries: appended in lots, reopened, searched, verified offline, and one changed byte found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.audit.log.segments import Segments
from strongbox.audit_log.chain import GENESIS, Entry, link
from strongbox.audit_log.key_file import format_keys
from strongbox.audit_log.verify_command import main
from tests.services.audit.logs import KEY, KEYS, entry

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]
ENTRIES, LOT = 1_000_000, 1000


@contextmanager
def told(what: str, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    started = time.monotonic()
    yield
    with capsys.disabled():
        print(f"\n{what}: {time.monotonic() - started:.1f} s", flush=True)


def lots() -> Iterator[list[Entry]]:
    head = GENESIS
    for first in range(0, ENTRIES, LOT):
        lot = []
        for index in range(first, first + LOT):
            chained = link(KEY, head, entry(index))
            head = chained.hmac
            lot.append(chained)
        yield lot


def test_a_million_entries_are_kept_found_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key_file = tmp_path / "audit", tmp_path / "key"
    folder.mkdir()
    key_file.write_text(format_keys(KEYS))
    log = Segments(folder)
    with told(f"{ENTRIES} entries chained and made durable, {LOT} a lot", capsys):
        for lot in lots():
            log.append(lot)
    head = log.head
    log.close()
    with told("opened again", capsys):
        log = Segments(folder)
    assert (log.size, log.head) == (ENTRIES, head)
    with told("one HMAC in the middle, and the ten lines after it", capsys):
        assert len(log.hmac_at(ENTRIES // 2)) == 64
        lines = log.read(ENTRIES // 2)
        assert [b'"version"' in next(lines) for _ in range(10)] == [True] * 10
    log.close()
    files = sorted(folder.glob("*.jsonl"))
    arguments = [*map(str, files), "--key-file", str(key_file)]
    with told(f"{sum(file.stat().st_size for file in files) >> 20} MiB verified offline", capsys):
        assert main(arguments) == 0
    middle = files[len(files) // 2]
    data = bytearray(middle.read_bytes())
    at = data.index(b"alice", len(data) // 2)
    data[at] = ord("A")
    middle.write_bytes(data)
    capsys.readouterr()
    assert main(arguments) == 1
    assert str(data[:at].count(b"\n") + sum(_lines(file) for file in files[: len(files) // 2])) in (
        capsys.readouterr().out
    )


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")
