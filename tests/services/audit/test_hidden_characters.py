"""Characters that break lines or hide text are escaped in the file: a line is one line for every reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.audit.following.replica import _require_equal
from services.audit.log.query import filter_of
from services.audit.log.segments import Segments
from strongbox.audit_log.chain import GENESIS, Verifier, canonical, link, parse_line
from tests.services.audit.log.test_query import asked
from tests.services.audit.logs import KEY, KEYS, entry

HIDDEN = [*map(chr, (0x7F, 0x85, 0x9F, 0xAD, 0x61C, 0x200B, 0x200E, 0x2028, 0x2029, 0x202E, 0x2066, 0xFEFF))]


@pytest.mark.parametrize("character", HIDDEN, ids=lambda one: f"U+{ord(one):04X}")
def test_an_entry_is_one_line_of_visible_text_for_every_reader(character: str) -> None:
    made = link(KEY, GENESIS, entry(0, path=f"secret/a{character}b"))
    line = made.line()
    text = line.decode()
    assert text.splitlines() == [text[:-1]] and character not in text
    assert json.loads(line)["path"] == f"secret/a{character}b"
    assert parse_line(line) == made
    assert f"a{character}b".encode() in canonical(made)  # what is hashed is the text itself, as ever


def test_lines_of_earlier_versions_are_read_and_kept_byte_for_byte(tmp_path: Path) -> None:
    made = link(KEY, GENESIS, entry(0, path="secret/a\u2028b"))
    old = replace(made, earlier=True).line()
    assert "\u2028".encode() in old
    read = Verifier(KEYS).check(old)
    assert read == made and read.line() == old
    log = Segments(tmp_path)
    log.append([read])  # as when a peer's history is copied
    assert list(log.read(0)) == [old]
    _require_equal(log, [made])  # as when the outbox is replayed
    log.close()


def test_a_line_escaped_in_any_third_way_is_a_fault() -> None:
    line = link(KEY, GENESIS, entry(0, path="secret/a\u2028b\u2029c")).line()
    for other in (
        line.replace(b"\\u2028", "\u2028".encode()), line.replace(b"\\u2028", b"\\u2028".upper()),
        line.replace(b"secret", b"\\u0073ecret"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"canonical|JSON"):
            parse_line(other)


def test_a_filter_finds_both_ways_of_writing() -> None:
    made = link(KEY, GENESIS, entry(0, path="secret/a\u2028b"))
    for line in (made.line(), replace(made, earlier=True).line()):
        assert filter_of(asked(path="secret/a\u2028b")).wants(line)
        assert filter_of(asked(path_prefix="secret/a\u2028")).wants(line)
        assert not filter_of(asked(path="secret/a\u2028")).wants(line)
