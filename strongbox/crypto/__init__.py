"""Cryptography: envelopes, key shares, secret bytes.

    aead               AES-256-GCM, HKDF, HMAC: the only user of `cryptography` for secrecy
    envelope           a data key per value, wrapped under a key-encryption key
    shamir             key shares
    secret_bytes       bytes that do not print, pickle or copy themselves
    memory_protection  no core dumps; a page that is not swapped

Nothing here does I/O but for the kernel's random source.
"""

from __future__ import annotations

from strongbox.crypto.errors import IntegrityError, ShareError, WipedError

__all__ = ["IntegrityError", "ShareError", "WipedError"]
