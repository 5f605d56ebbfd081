"""Handing a 32-byte secret to one receiver over X25519 (RFC 7748): only who made the receiver's key opens it.

    shared  = X25519(giver's fresh key, receiver's fresh key)
    key     = HKDF-SHA256(shared, info: label ‖ giver's public key ‖ receiver's public key ‖ context…)
    gift    = AES-256-GCM(key, secret, aad: the same info)

* Both keys are fresh for each handover and dropped after it, so a recorded handover stays closed when a TLS
  key is stolen later (forward secrecy of its own, whatever the TLS session below does).
* Both public keys are in `info`: X25519 alone lets different public keys lead to one shared secret (RFC
  7748 §6.1), and a gift for one receiver must not be presentable as another's.
* `context` says for whom and in which state of the cluster: a gift moved elsewhere does not open.
* Nothing here says who the other one is: the caller authenticates both ends (mutual TLS) and puts the
  identity that TLS proved into `context`.
* HKDF's extract step makes the shared secret, a curve point and not uniform, into a uniform key (RFC 5869
  §3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongbox.crypto.aead import KEY_BYTES, Aead, Box, canonical_aad
from strongbox.crypto.errors import IntegrityError

PUBLIC_BYTES = 32
_LABEL = "handover v1"

Part = bytes | str | int


@dataclass(frozen=True, slots=True)
class Gift:
    """What travels: the giver's fresh public key (32 bytes) and the secret under the agreed key."""

    public: bytes
    box: Box


class Receiver:
    """One handover's receiving end: a fresh key pair, whose private half never leaves this object."""

    __slots__ = ("_private", "public")

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def open(self, gift: Gift, *context: Part) -> bytes:
        """The secret. Raises IntegrityError: altered, for another receiver, or under another context."""
        info = canonical_aad(_LABEL, gift.public, self.public, *context)
        return _cipher(self._private, gift.public, info).open(gift.box, info)

    def __repr__(self) -> str:
        return "Receiver(…)"


def hand_over(secret: bytes | memoryview, public: bytes, *context: Part) -> Gift:
    """`secret` for whoever has the private half of `public` (32 bytes).

    Raises IntegrityError when `public` is not a usable key.
    """
    private = X25519PrivateKey.generate()
    own = private.public_key().public_bytes_raw()
    info = canonical_aad(_LABEL, own, public, *context)
    return Gift(own, _cipher(private, public, info).seal(secret, info))


def _cipher(private: X25519PrivateKey, public: bytes, info: bytes) -> Aead:
    if len(public) != PUBLIC_BYTES:
        raise IntegrityError
    try:
        # Raises for a point of small order, where the shared secret would be zero whatever our key is.
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise IntegrityError from None
    return Aead(HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(shared))
