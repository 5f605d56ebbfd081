"""The primitives, each used in one way: AES-256-GCM, HKDF-SHA256, HMAC-SHA256.

This is the only module that names `cryptography` for secrecy. Sources: NIST SP 800-38D (GCM), RFC 5869
(HKDF), RFC 2104 (HMAC). Keys are 32 bytes from the kernel, or derived from such.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongbox.crypto.encoding import canonical_aad
from strongbox.crypto.errors import IntegrityError, WipedError

__all__ = [
    "KEY_BYTES",
    "NONCE_BYTES",
    "TAG_BYTES",
    "Aead",
    "Box",
    "canonical_aad",
    "derive",
    "is_equal",
    "mac",
    "new_key",
]

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
MAC_BYTES = 32
_MAX_DERIVED_BYTES = 255 * 32  # RFC 5869 §2.3

Bytes = bytes | bytearray | memoryview


def new_key() -> bytes:
    """32 bytes from the kernel's CSPRNG (getrandom(2): blocks until it is seeded, then never)."""
    return os.urandom(KEY_BYTES)


@dataclass(frozen=True, slots=True)
class Box:
    """What sealing gives: nonce (12 bytes), ciphertext (as long as the plaintext), tag (16 bytes)."""

    nonce: bytes
    ciphertext: bytes
    tag: bytes


class Aead:
    """AES-256-GCM under one key, which lives in OpenSSL's key schedule and is cleansed when that is freed."""

    __slots__ = ("_cipher",)

    def __init__(self, key: Bytes) -> None:
        """`key`: 32 bytes; the schedule is made here, so the caller may wipe his buffer at once."""
        # AESGCM also takes 16 and 24 bytes; a truncated key must not quietly mean AES-128.
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._cipher: AESGCM | None = AESGCM(key)

    def seal(self, plaintext: Bytes, aad: bytes) -> Box:
        """Encrypt and authenticate; `aad` is authenticated only. Raises WipedError.

        The nonce is 96 random bits, GCM's own length (others go through GHASH and weaken the bound). A
        counter would have to be shared by every replica and survive every restart; random needs no state.
        SP 800-38D §8.3 allows 2^32 seals per key, for a collision chance of 2^-32. A data key seals one
        version, with at most a few repetitions; a key-encryption key's term is retired before 2^31 wraps.
        """
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._require().encrypt(nonce, plaintext, aad)
        return Box(nonce, sealed[:-TAG_BYTES], sealed[-TAG_BYTES:])

    def open(self, box: Box, aad: bytes) -> bytes:
        """The plaintext. Raises IntegrityError, the same whatever was wrong, and WipedError."""
        # Lengths first: ciphertext ‖ tag is split by position, so a box with bytes moved between the two
        # would open as the same value; and a short nonce is an error of another kind inside the library.
        if len(box.nonce) != NONCE_BYTES or len(box.tag) != TAG_BYTES:
            raise IntegrityError
        try:
            # The library compares the tag in constant time and gives out nothing before it has.
            return self._require().decrypt(box.nonce, box.ciphertext + box.tag, aad)
        except InvalidTag:
            raise IntegrityError from None

    def wipe(self) -> None:
        """Drop the cipher: OpenSSL cleanses its schedule. This object can do nothing afterwards."""
        self._cipher = None

    def _require(self) -> AESGCM:
        if self._cipher is None:
            raise WipedError
        return self._cipher

    def __repr__(self) -> str:
        return "Aead(…)"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a cipher is neither pickled nor copied")


def derive(root: Bytes, label: str, length: int = KEY_BYTES) -> bytes:
    """A key for one purpose from a root key of 32 bytes: HKDF-SHA256, `label` as the info, 1..8160 bytes.

    No salt: RFC 5869 §3.1 has it for roots that are not uniform; ours are. Keys of different labels are
    independent: knowing one tells nothing of the root or of another. `length` is part of the info, since
    with HKDF alone a shorter key is the beginning of a longer one.
    """
    if len(root) != KEY_BYTES:
        raise ValueError(f"a root key has {KEY_BYTES} bytes")
    if not 1 <= length <= _MAX_DERIVED_BYTES:
        raise ValueError(f"a derived key has 1..{_MAX_DERIVED_BYTES} bytes")
    info = canonical_aad("derive", label, length)
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(root)


def mac(key: Bytes, label: str, *parts: bytes | str | int) -> bytes:
    """HMAC-SHA256, 32 bytes, over the canonical encoding of `label` and `parts`; `key` has 32 bytes.

    HMAC, not a bare hash of key ‖ message: SHA-256 can be extended by whoever knows a digest.
    """
    # HMAC takes any key, an empty one too, which anybody could forge with: only ours are let through.
    if len(key) != KEY_BYTES:
        raise ValueError(f"a MAC key has {KEY_BYTES} bytes")
    # hmac.digest is typed for bytes; the copy lives as long as the call.
    return hmac.digest(bytes(key), canonical_aad(label, *parts), "sha256")


def is_equal(one: Bytes, other: Bytes) -> bool:
    """Whether two secrets or MACs are the same, in time that depends on their lengths only."""
    return hmac.compare_digest(one, other)
