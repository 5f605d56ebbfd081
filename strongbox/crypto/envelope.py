"""Envelope encryption: a fresh data key (DEK) per value, wrapped under a key-encryption key (KEK).

    KEK of (purpose, term) ──wraps──▶ DEK        AAD: purpose, term, DEK id
    DEK                    ──seals──▶ value      AAD: purpose, path, version, DEK id

* The AADs bind a ciphertext to its place: moved to another path, version, purpose or DEK it does not open.
* The value's AAD holds no term, so a rotation rewraps 32 bytes and never touches the value.
* The DEK id is in both: a wrapped key and a value from different envelopes do not go together, and the error
  is clean. It is random and public.
* A DEK can be wrapped before the version is known (`wrap_dek` asks nothing of the value) and the value sealed
  when it is (`seal_value`); a version decided again is sealed again under the same DEK, with a new nonce.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from strongbox.crypto.aead import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Aead, Box, canonical_aad, new_key
from strongbox.crypto.errors import IntegrityError

DEK_ID_BYTES = 16
_WRAP_LABEL = "dek wrap v1"
_VALUE_LABEL = "value v1"


@dataclass(frozen=True, slots=True)
class Dek:
    """A data key in clear: `id` (16 bytes, public) and `key` (32 bytes, secret)."""

    id: bytes
    key: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> Dek:
        """A new one, from the kernel. 128 random bits of id: two of 2^40 DEKs share one with chance 2^-49."""
        return cls(os.urandom(DEK_ID_BYTES), new_key())


@dataclass(frozen=True, slots=True)
class WrappedDek:
    """A DEK as it is stored: ciphertext (32 bytes), tag (16), nonce (12), under the KEK of `term`."""

    id: bytes
    term: int
    ciphertext: bytes
    tag: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A value as it is stored. All of it is public."""

    wrapped_dek: bytes
    dek_tag: bytes
    dek_nonce: bytes
    ciphertext: bytes
    tag: bytes
    nonce: bytes
    term: int
    dek_id: bytes

    @property
    def wrapped(self) -> WrappedDek:
        """The part that seal unwraps."""
        return WrappedDek(self.dek_id, self.term, self.wrapped_dek, self.dek_tag, self.dek_nonce)

    def rewrapped(self, wrapped: WrappedDek) -> Envelope:
        """The same value with the same DEK wrapped under another term. Raises ValueError for another DEK."""
        if wrapped.id != self.dek_id:
            raise ValueError("this is another data key's wrapping")
        return replace(
            self,
            wrapped_dek=wrapped.ciphertext,
            dek_tag=wrapped.tag,
            dek_nonce=wrapped.nonce,
            term=wrapped.term,
        )


def is_possible(wrapped: WrappedDek) -> bool:
    """Whether `wrap_dek` can have made it, by its sizes and term: what is in etcd can be anything."""
    sizes = (len(wrapped.id), len(wrapped.ciphertext), len(wrapped.tag), len(wrapped.nonce))
    return wrapped.term > 0 and sizes == (DEK_ID_BYTES, KEY_BYTES, TAG_BYTES, NONCE_BYTES)


def wrap_dek(kek: Aead, purpose: str, term: int, dek: Dek) -> WrappedDek:
    """Wrap under the KEK of `term` for `purpose` (the caller's, by its certificate)."""
    if len(dek.id) != DEK_ID_BYTES or len(dek.key) != KEY_BYTES:
        raise ValueError(f"a data key has {KEY_BYTES} bytes, its id {DEK_ID_BYTES}")
    box = kek.seal(dek.key, canonical_aad(_WRAP_LABEL, purpose, term, dek.id))
    return WrappedDek(dek.id, term, box.ciphertext, box.tag, box.nonce)


def unwrap_dek(kek: Aead, purpose: str, wrapped: WrappedDek) -> bytes:
    """The DEK's 32 bytes. Raises IntegrityError: altered, another purpose's, or another term's KEK."""
    box = Box(wrapped.nonce, wrapped.ciphertext, wrapped.tag)
    # From etcd anything can come; a term or id of impossible shape is a forgery like any other.
    if wrapped.term < 0 or len(wrapped.id) != DEK_ID_BYTES:
        raise IntegrityError
    return kek.open(box, canonical_aad(_WRAP_LABEL, purpose, wrapped.term, wrapped.id))


def seal_value(
    dek: Dek, wrapped: WrappedDek, purpose: str, path: str, version: int, plaintext: bytes
) -> Envelope:
    """Encrypt `plaintext` as (`path`, `version`) of `purpose`. `wrapped` is the wrapping of the same `dek`.

    Raises ValueError when it is not: such an envelope could never be opened.
    """
    if dek.id != wrapped.id:
        raise ValueError("this is another data key's wrapping")
    box = Aead(dek.key).seal(plaintext, _value_aad(purpose, path, version, dek.id))
    return Envelope(
        wrapped_dek=wrapped.ciphertext,
        dek_tag=wrapped.tag,
        dek_nonce=wrapped.nonce,
        ciphertext=box.ciphertext,
        tag=box.tag,
        nonce=box.nonce,
        term=wrapped.term,
        dek_id=dek.id,
    )


def open_value(key: bytes, envelope: Envelope, purpose: str, path: str, version: int) -> bytes:
    """The value, `key` being the unwrapped DEK. Raises IntegrityError: altered, or from another place."""
    box = Box(envelope.nonce, envelope.ciphertext, envelope.tag)
    return Aead(key).open(box, _value_aad(purpose, path, version, envelope.dek_id))


def _value_aad(purpose: str, path: str, version: int, dek_id: bytes) -> bytes:
    return canonical_aad(_VALUE_LABEL, purpose, path, version, dek_id)
