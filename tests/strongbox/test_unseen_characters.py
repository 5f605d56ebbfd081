"""Paths hold nothing that a screen or a log does not show, and nothing that only some doors take."""

from __future__ import annotations

import pytest

from strongbox.access.policy_engine import why_bad_pattern
from strongbox.errors import InvalidPath
from strongbox.paths import DirectoryPath, SecretPath

UNSEEN = {
    "line separator": 0x2028, "paragraph separator": 0x2029, "right-to-left override": 0x202E,
    "isolate": 0x2066, "zero width space": 0x200B, "zero width joiner": 0x200D, "byte order mark": 0xFEFF,
    "soft hyphen": 0xAD, "grapheme joiner": 0x34F, "hangul filler": 0x3164, "variation selector": 0xFE0F,
    "next line": 0x85, "tag": 0xE0041, "private use": 0xE000,
}  # fmt: skip


@pytest.mark.parametrize("code", UNSEEN.values(), ids=UNSEEN)
def test_a_character_that_is_not_seen_is_in_no_path_and_no_pattern(code: int) -> None:
    text = f"app/a{chr(code)}b"
    with pytest.raises(InvalidPath):
        SecretPath.parse(text)
    with pytest.raises(InvalidPath):
        DirectoryPath.parse(text)
    assert why_bad_pattern(f"secret/{text}")


def test_a_backslash_is_in_no_path_at_any_door() -> None:
    with pytest.raises(InvalidPath):
        SecretPath.parse("a\\b")
    assert why_bad_pattern("secret/a\\b*")


@pytest.mark.parametrize("text", ["app/é", "日本語/キー", "a b/c", "emoji/🔑", "עברית"])
def test_what_is_seen_is_a_path(text: str) -> None:
    assert SecretPath.parse(text).text == text
