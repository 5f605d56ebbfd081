"""The canonical encoding: frozen bytes, and no two lists that look alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.crypto.encoding import canonical_aad

PART = st.binary(max_size=12) | st.text(max_size=8) | st.integers(0, 2**63 - 1)
PARTS = st.lists(PART, max_size=5)


def _typed(label: str, parts: list[Any]) -> list[tuple[type, Any]]:
    return [(type(part), part) for part in (label, *parts)]


def _decode(data: bytes) -> list[tuple[type, Any]]:
    """An independent reader: what it reads back unambiguously cannot be the encoding of anything else."""
    found: list[tuple[type, Any]] = []
    while data:
        kind, length = data[:1], int.from_bytes(data[1:9], "big")
        content, data = data[9 : 9 + length], data[9 + length :]
        assert len(content) == length
        if kind == b"i":
            found.append((int, int.from_bytes(content, "big")))
        else:
            found.append((str, content.decode()) if kind == b"s" else (bytes, content))
    return found


@given(st.text(max_size=10), PARTS)
def test_what_was_encoded_can_be_read_back(label: str, parts: list[Any]) -> None:
    assert _decode(canonical_aad(label, *parts)) == _typed("strongbox " + label, parts)


@given(st.text(max_size=3), PARTS, st.text(max_size=3), PARTS)
def test_different_lists_never_give_the_same_bytes(
    label: str, parts: list[Any], other_label: str, others: list[Any]
) -> None:
    same = canonical_aad(label, *parts) == canonical_aad(other_label, *others)
    assert same == (_typed(label, parts) == _typed(other_label, others))


@given(st.binary(min_size=2, max_size=20), st.data())
def test_the_border_between_two_parts_is_encoded(text: bytes, data: st.DataObject) -> None:
    one = data.draw(st.integers(0, len(text)))
    other = data.draw(st.integers(0, len(text)).filter(lambda cut: cut != one))
    first, second = canonical_aad("x", text[:one], text[one:]), canonical_aad("x", text[:other], text[other:])
    assert first != second
    assert canonical_aad("x", text) != first


def test_the_bytes_are_frozen_since_stored_ciphertexts_depend_on_them() -> None:
    assert canonical_aad("value v1", "a/é", b"\x00\xff", 7).hex() == (
        "73" "0000000000000012" "7374726f6e67626f782076616c7565207631"
        "73" "0000000000000004" "612fc3a9"
        "62" "0000000000000002" "00ff"
        "69" "0000000000000008" "0000000000000007"
    )  # fmt: skip


def test_kinds_that_print_alike_are_kept_apart() -> None:
    kinds: list[Any] = [1, "1", b"1", "\x00" * 7 + "\x01", b"\x00" * 7 + b"\x01"]
    assert len({canonical_aad("x", part) for part in kinds}) == len(kinds)


@pytest.mark.parametrize("part", [True, None, 1.0, bytearray(b"x"), ("a",)])
def test_other_types_are_refused(part: Any) -> None:
    with pytest.raises(TypeError):
        canonical_aad("x", part)


@pytest.mark.parametrize("part", [-1, 2**63])
def test_integers_outside_63_bits_are_refused(part: int) -> None:
    with pytest.raises(ValueError, match="2\\*\\*63-1"):
        canonical_aad("x", part)
