"""Envelopes: a value opens at its own place, under its own key, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.crypto import IntegrityError
from strongbox.crypto.aead import Aead
from strongbox.crypto.envelope import (
    DEK_ID_BYTES,
    Dek,
    Envelope,
    WrappedDek,
    open_value,
    seal_value,
    unwrap_dek,
    wrap_dek,
)

KEK = Aead(b"k" * 32)
PLACE = ("kv", "app/db", 3)


def _sealed(plaintext: bytes = b"hunter2", place: tuple[str, str, int] = PLACE) -> tuple[Dek, Envelope]:
    dek = Dek.fresh()
    return dek, seal_value(dek, wrap_dek(KEK, place[0], 1, dek), *place, plaintext)


@given(st.binary(max_size=400), st.text(max_size=20), st.integers(0, 2**31))
def test_a_value_opens_at_its_place(plaintext: bytes, path: str, version: int) -> None:
    dek, envelope = _sealed(plaintext, ("kv", path, version))
    key = unwrap_dek(KEK, "kv", envelope.wrapped)
    assert key == dek.key
    assert open_value(key, envelope, "kv", path, version) == plaintext


@pytest.mark.parametrize(
    "place",
    [
        ("lease", "app/db", 3), ("kv", "app/d", 3), ("kv", "app/db", 4), ("kv", "app/db/", 3),
        ("kvapp/db", "", 3), ("", "kvapp/db", 3), ("kv", "App/db", 3), ("kv", "app/db", 0),
    ],
)  # fmt: skip
def test_a_ciphertext_moved_to_another_place_does_not_open(place: tuple[str, str, int]) -> None:
    dek, envelope = _sealed()
    with pytest.raises(IntegrityError):
        open_value(dek.key, envelope, *place)


def test_a_value_given_another_deks_id_or_key_does_not_open() -> None:
    dek, envelope = _sealed()
    other, foreign = _sealed()
    with pytest.raises(IntegrityError):
        open_value(other.key, envelope, *PLACE)
    with pytest.raises(IntegrityError):
        open_value(dek.key, replace(envelope, dek_id=foreign.dek_id), *PLACE)


@pytest.mark.parametrize("part", ["ciphertext", "tag", "nonce"])
def test_parts_of_two_envelopes_of_the_same_key_do_not_mix(part: str) -> None:
    dek = Dek.fresh()
    wrapped = wrap_dek(KEK, "kv", 1, dek)
    one, two = (seal_value(dek, wrapped, *PLACE, text) for text in (b"first", b"other"))
    with pytest.raises(IntegrityError):
        open_value(dek.key, replace(one, **{part: getattr(two, part)}), *PLACE)


@pytest.mark.parametrize(
    "change",
    [
        {"term": 2}, {"term": 0}, {"term": -1}, {"id": bytes(16)}, {"id": b""}, {"id": bytes(15)},
        {"tag": bytes(16)}, {"tag": b""}, {"nonce": b""}, {"nonce": bytes(12)}, {"ciphertext": bytes(32)},
    ],
)  # fmt: skip
def test_an_altered_wrapping_does_not_open(change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        unwrap_dek(KEK, "kv", replace(wrap_dek(KEK, "kv", 1, Dek.fresh()), **change))


def test_a_wrapping_opens_for_its_purpose_and_kek_only() -> None:
    wrapped = wrap_dek(KEK, "kv", 1, Dek.fresh())
    for kek, purpose in ((KEK, "lease"), (KEK, "KV"), (Aead(b"o" * 32), "kv")):
        with pytest.raises(IntegrityError):
            unwrap_dek(kek, purpose, wrapped)


def test_rewrapping_to_a_new_term_leaves_the_value_untouched() -> None:
    dek, envelope = _sealed()
    new_kek = Aead(b"n" * 32)
    moved = envelope.rewrapped(wrap_dek(new_kek, "kv", 2, dek))
    assert (moved.ciphertext, moved.tag, moved.nonce) == (envelope.ciphertext, envelope.tag, envelope.nonce)
    assert open_value(unwrap_dek(new_kek, "kv", moved.wrapped), moved, *PLACE) == b"hunter2"
    with pytest.raises(IntegrityError):
        unwrap_dek(KEK, "kv", moved.wrapped)


def test_envelope_and_wrapping_of_different_keys_are_refused_before_anything_is_lost() -> None:
    dek, envelope = _sealed()
    foreign = wrap_dek(KEK, "kv", 2, Dek.fresh())
    with pytest.raises(ValueError, match="another data key"):
        envelope.rewrapped(foreign)
    with pytest.raises(ValueError, match="another data key"):
        seal_value(dek, foreign, *PLACE, b"x")


def test_a_version_decided_again_is_sealed_under_a_new_nonce() -> None:
    dek = Dek.fresh()
    wrapped = wrap_dek(KEK, "kv", 1, dek)
    again = [seal_value(dek, wrapped, "kv", "p", version, b"x") for version in range(50)]
    assert len({envelope.nonce for envelope in again}) == 50


def test_a_data_key_of_the_wrong_shape_is_not_wrapped() -> None:
    for dek in (Dek(bytes(15), bytes(32)), Dek(bytes(16), bytes(16)), Dek(b"", b"")):
        with pytest.raises(ValueError, match="32 bytes"):
            wrap_dek(KEK, "kv", 1, dek)


def test_a_data_key_does_not_print_and_is_fresh_each_time() -> None:
    assert "kkk" not in repr(Dek(b"i" * 16, b"k" * 32))
    ids = {(dek.id, dek.key) for dek in (Dek.fresh() for _ in range(100))}
    assert len(ids) == 100
    assert all(len(dek_id) == DEK_ID_BYTES for dek_id, _ in ids)


def test_neither_the_value_nor_its_key_is_visible_in_an_envelope() -> None:
    dek, envelope = _sealed(b"a value that is long enough to find")
    stored = b"".join(value if isinstance(value, bytes) else b"" for value in _fields(envelope))
    assert b"long enough" not in stored
    assert dek.key not in stored


def _fields(envelope: Envelope) -> list[object]:
    return [getattr(envelope, name) for name in Envelope.__dataclass_fields__]


def test_the_layout_of_stored_envelopes_is_frozen() -> None:
    """Made once with a fixed nonce source; if this fails, what is stored can no longer be read."""
    wrapped = WrappedDek(
        b"i" * 16, 1,
        bytes.fromhex(WRAPPED["ciphertext"]), bytes.fromhex(WRAPPED["tag"]), b"n" * 12,
    )  # fmt: skip
    key = unwrap_dek(KEK, "kv", wrapped)
    assert key == b"d" * 32
    envelope = Envelope(
        wrapped.ciphertext, wrapped.tag, wrapped.nonce,
        bytes.fromhex(VALUE["ciphertext"]), bytes.fromhex(VALUE["tag"]), b"v" * 12, 1, wrapped.id,
    )  # fmt: skip
    assert open_value(key, envelope, *PLACE) == b"hunter2"


WRAPPED = {
    "ciphertext": "fc5f83d475d0e1bd28406f20e7cdc8b0e78fbbd874d54a80591e072ad6ab7d47",
    "tag": "a2fbdd785aa2e6ef5d09797aed708065",
}
VALUE = {"ciphertext": "8219619f9b11e9", "tag": "4d1cf476be331d393fd36d6fdc169745"}
