"""Signed checkpoints: their one form, whose they are, and every way to edit one."""

from __future__ import annotations

import base64

import pytest

from strongbox.audit_log.checkpoint import BadCheckpoint, Checkpoint, origin_of, sign, verifier_key, verify
from strongbox.crypto.ed25519 import SigningKey, from_pem, is_signed, to_pem

KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(32))
TOLD = Checkpoint(origin_of("7d9f0c1e"), 1234, bytes(range(32)))
NOTE = sign(TOLD, KEY)


def test_a_checkpoint_has_the_form_of_c2sp() -> None:
    lines = NOTE.split("\n")
    assert lines[:4] == [
        "strongbox.internal/7d9f0c1e/audit",
        "1234",
        base64.b64encode(TOLD.root).decode(),
        "",
    ]
    dash, name, signature = lines[4].split(" ")
    assert (dash, name, lines[5:]) == ("—", lines[0], [""])
    raw = base64.b64decode(signature)
    assert len(raw) == 4 + 64
    assert is_signed(KEY.public, "\n".join([*lines[:3], ""]).encode(), raw[4:])
    named, digest, key = verifier_key(lines[0], KEY.public).split("+", 2)
    assert (named, bytes.fromhex(digest), base64.b64decode(key)) == (name, raw[:4], b"\x01" + KEY.public)


def test_it_says_what_was_signed_and_by_whom() -> None:
    assert verify(NOTE, KEY.public) == verify(NOTE, KEY.public, TOLD.origin) == TOLD
    with pytest.raises(BadCheckpoint, match="another log"):
        verify(NOTE, KEY.public, origin_of("another"))
    with pytest.raises(BadCheckpoint, match="not signed with this key"):
        verify(NOTE, OTHER.public)


def test_further_signatures_are_no_harm() -> None:
    witness = base64.b64encode(b"\0\0\0\1" + bytes(76)).decode()
    assert verify(f"{NOTE}— witness.example/w {witness}\n", KEY.public) == TOLD


def test_any_edited_character_is_found() -> None:
    for place, character in enumerate(NOTE):
        for changed in {"x", "0", "\n", "", " ", character * 2} - {character}:
            note = NOTE[:place] + changed + NOTE[place + 1 :]
            if note.rstrip("\n") == NOTE.rstrip("\n"):
                continue  # more or fewer newlines after the last line say nothing
            with pytest.raises(BadCheckpoint):
                verify(note, KEY.public)


SIZES = ("01234", "-1", "٣", "9" * 5000)


@pytest.mark.parametrize(
    "note", ["", "\n", "\n\n", "a\n1\n\n", NOTE * 1000, *(NOTE.replace("1234", size) for size in SIZES)],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(note: str) -> None:
    with pytest.raises(BadCheckpoint):
        verify(note, KEY.public)


def test_public_keys_are_kept_as_pem() -> None:
    assert from_pem(to_pem(KEY.public)) == KEY.public
    assert "BEGIN PUBLIC KEY" in to_pem(KEY.public)
    for text in ("", "nonsense", to_pem(KEY.public)[:-40]):
        with pytest.raises(ValueError):
            from_pem(text)
    assert "SigningKey(…)" in repr(KEY)
    assert not is_signed(b"short", b"", bytes(64))
    assert not is_signed(KEY.public, b"", b"short")
