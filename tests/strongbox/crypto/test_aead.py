"""AES-256-GCM, HKDF and HMAC: published vectors, and everything that must not open."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.crypto import IntegrityError, WipedError, aead
from strongbox.crypto.aead import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Aead, Box, derive, is_equal, mac, new_key

# McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test cases 13 to 16; NIST took them
# over for SP 800-38D. Each: key, nonce, plaintext, additional data, ciphertext, tag.
_KEY = "feffe9928665731c6d6a8f9467308308" * 2
_TEXT = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
)
_CIPHER = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
)
GCM_VECTORS = [
    ("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    (
        "00" * 32, "00" * 12, "00" * 16, "",
        "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (_KEY, "cafebabefacedbaddecaf888", _TEXT, "", _CIPHER, "b094dac5d93471bdec1a502270e3cc6c"),
    (
        _KEY, "cafebabefacedbaddecaf888", _TEXT[:-8], "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        _CIPHER[:-8], "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
]  # fmt: skip


@pytest.mark.parametrize("vector", GCM_VECTORS)
def test_published_vectors_open_and_seal(
    vector: tuple[str, str, str, str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, nonce, plaintext, aad, ciphertext, tag = map(bytes.fromhex, vector)
    box = Box(nonce, ciphertext, tag)
    assert Aead(key).open(box, aad) == plaintext
    monkeypatch.setattr("os.urandom", lambda count: nonce[:count])
    assert Aead(key).seal(plaintext, aad) == box


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_what_was_sealed_opens_under_the_same_key_and_data(plaintext: bytes, aad: bytes) -> None:
    cipher = Aead(bytes(range(32)))
    box = cipher.seal(plaintext, aad)
    assert (len(box.nonce), len(box.ciphertext), len(box.tag)) == (NONCE_BYTES, len(plaintext), TAG_BYTES)
    assert cipher.open(box, aad) == plaintext


@given(st.integers(0, 10**9), st.sampled_from(["nonce", "ciphertext", "tag", "aad", "key"]))
def test_one_altered_bit_anywhere_does_not_open(position: int, where: str) -> None:
    parts = {"key": new_key(), "aad": b"a place"}
    box = Aead(parts["key"]).seal(b"sixteen secret b", parts["aad"])
    parts.update(nonce=box.nonce, ciphertext=box.ciphertext, tag=box.tag)
    bits = int.from_bytes(parts[where], "big") ^ 1 << position % (8 * len(parts[where]))
    parts[where] = bits.to_bytes(len(parts[where]), "big")
    with pytest.raises(IntegrityError):
        Aead(parts["key"]).open(Box(parts["nonce"], parts["ciphertext"], parts["tag"]), parts["aad"])


def test_bytes_moved_between_the_parts_of_a_box_do_not_open() -> None:
    cipher = Aead(new_key())
    box = cipher.seal(b"value", b"")
    whole = box.ciphertext + box.tag
    for cut in range(len(whole) + 1):
        if cut != len(box.ciphertext):
            with pytest.raises(IntegrityError):
                cipher.open(Box(box.nonce, whole[:cut], whole[cut:]), b"")
    for nonce in (b"", box.nonce[:-1], box.nonce + b"\0", bytes(16)):
        with pytest.raises(IntegrityError):
            cipher.open(Box(nonce, box.ciphertext, box.tag), b"")


def test_every_failure_to_open_reads_the_same() -> None:
    cipher = Aead(new_key())
    box = cipher.seal(b"value", b"here")
    bad = [
        (Box(b"", box.ciphertext, box.tag), b"here"),
        (box, b"there"),
        (Box(box.nonce, b"", box.tag), b"here"),
    ]
    seen = set()
    for broken, aad in bad:
        with pytest.raises(IntegrityError) as caught:
            cipher.open(broken, aad)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        seen.add(str(caught.value))
    assert seen == {"the ciphertext does not authenticate"}


def test_the_same_text_sealed_twice_never_looks_the_same() -> None:
    cipher = Aead(new_key())
    boxes = [cipher.seal(b"same", b"same") for _ in range(500)]
    assert len({box.nonce for box in boxes}) == len({box.ciphertext for box in boxes}) == 500


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_of_another_length_is_refused_everywhere(length: int) -> None:
    for use in (Aead, lambda key: derive(key, "x"), lambda key: mac(key, "x")):
        with pytest.raises(ValueError, match="32 bytes"):
            use(bytes(length))


def test_a_wiped_cipher_raises_and_can_be_wiped_again() -> None:
    cipher = Aead(new_key())
    box = cipher.seal(b"x", b"")
    cipher.wipe()
    cipher.wipe()
    with pytest.raises(WipedError):
        cipher.open(box, b"")
    with pytest.raises(WipedError):
        cipher.seal(b"x", b"")


def test_a_cipher_does_not_print_pickle_or_copy_itself() -> None:
    cipher = Aead(b"k" * 32)
    assert "kkk" not in repr(cipher) + str(cipher)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(cipher)


def _hkdf(root: bytes, info: bytes, length: int, salt: bytes = bytes(32)) -> bytes:
    """RFC 5869 §2, from the text, to check the library and our use of it."""
    key, block, out = hmac.digest(salt, root, "sha256"), b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        out += block
    return out[:length]


def test_the_reading_of_rfc_5869_gives_its_vectors() -> None:
    """Appendix A.1 and A.3."""
    root = bytes.fromhex("0b" * 22)
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    first = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    third = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert _hkdf(root, info, 42, salt).hex() == first
    assert _hkdf(root, b"", 42).hex() == third


@given(st.binary(min_size=32, max_size=32), st.text(max_size=20), st.integers(1, 300))
def test_derived_keys_are_hkdf_without_salt_over_label_and_length(
    root: bytes, label: str, length: int
) -> None:
    assert derive(root, label, length) == _hkdf(root, aead.canonical_aad("derive", label, length), length)


def test_a_shorter_derived_key_is_no_beginning_of_a_longer_one() -> None:
    assert not derive(bytes(32), "x", 64).startswith(derive(bytes(32), "x", 32))
    assert derive(bytes(32), "x") != derive(bytes(32), "y")
    for length in (0, -1, 8161):
        with pytest.raises(ValueError, match="8160"):
            derive(bytes(32), "x", length)


def test_a_mac_is_hmac_sha256_of_the_canonical_encoding() -> None:
    message = aead.canonical_aad("label", b"one", "two", 3)
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in b"k" * 32 + bytes(32)) + message).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in b"k" * 32 + bytes(32)) + inner).digest()  # RFC 2104
    assert mac(b"k" * 32, "label", b"one", "two", 3) == outer
    assert is_equal(outer, bytearray(outer))
    assert not is_equal(outer, outer[:-1])


def test_keys_are_of_full_length_and_never_repeat() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {KEY_BYTES}
