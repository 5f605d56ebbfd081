"""Key shares: Shamir's secret sharing (CACM 22 (11), 1979) over GF(2^8), byte by byte.

* Each byte of the secret is the value at 0 of a random polynomial of degree `threshold` - 1; share number i
  (1..n) holds the values at i. Any `threshold` shares give the secret; fewer give every secret the same
  probability.
* For that, every other coefficient is uniform over all 256 values. Zero is one of them: a scheme that avoids
  it (to have the "right" degree) tells from threshold - 1 shares which secrets are impossible.
* The scheme cannot tell right shares from wrong ones: too few, foreign or altered shares combine to another
  secret. `seal/config` holds a digest of each share for that; here only what is malformed is refused.
* Text: base64url without padding of version (1 byte, 1) ‖ index (1 byte) ‖ data. 32 bytes give 46 characters.
* Errors are clear and never quote a share. Arithmetic takes the same time for every secret (see gf256);
  base64 of the standard library makes no such promise, and is used only on text that its owner has in clear.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from strongbox.crypto.errors import ShareError
from strongbox.crypto.gf256 import Field, invert, multiply

MAX_SHARES = 255
SECRET_BYTES = 32
_VERSION = 1

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Share:
    """One key share: `index` 1..255, `data` as long as the secret."""

    index: int
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        # Index 0 would be the secret itself.
        if not 1 <= self.index <= MAX_SHARES:
            raise ShareError(f"a share's index is 1..{MAX_SHARES}")
        if not self.data:
            raise ShareError("a share is not empty")

    def encode(self) -> str:
        """The text handed to its owner."""
        raw = bytes([_VERSION, self.index]) + self.data
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")

    @classmethod
    def decode(cls, text: str, length: int = SECRET_BYTES) -> Share:
        """Read what `encode` wrote for a secret of `length` bytes. Raises ShareError.

        White space around it and `=` at its end are harmless: people paste.
        """
        raw = _from_base64url(text.strip().rstrip("="))
        if len(raw) != length + 2:
            raise ShareError(f"a key share has {_text_length(length)} characters")
        if raw[0] != _VERSION:
            raise ShareError("a key share of an unknown version")
        return cls(raw[1], raw[2:])


def split(secret: bytes, shares: int, threshold: int, random: RandomBytes = os.urandom) -> list[Share]:
    """`shares` key shares, any `threshold` of which give `secret` (1 byte or more) back.

    `random(n)` gives n uniform bytes; others than the kernel's are for tests. Raises ShareError for numbers
    that make no sense: threshold 1 of several would hand the secret itself to each.
    """
    if not 1 <= threshold <= shares <= MAX_SHARES:
        raise ShareError(f"1 <= threshold <= shares <= {MAX_SHARES} must hold")
    if threshold == 1 and shares > 1:
        raise ShareError("a threshold of 1 needs exactly one share")
    if not secret:
        raise ShareError("the secret is not empty")
    length = len(secret)
    plane = Field(length)
    noise = random(length * (threshold - 1))
    if len(noise) != length * (threshold - 1):
        raise ShareError("the random source gave too little")
    rest = [plane.vector(noise[i : i + length]) for i in range(0, len(noise), length)]
    coefficients = [plane.vector(secret), *rest]
    return [Share(x, plane.to_bytes(_evaluate(plane, coefficients, x))) for x in range(1, shares + 1)]


def combine(shares: Sequence[Share]) -> bytes:
    """The secret, from exactly those shares (threshold or more of one split). Raises ShareError.

    Lagrange's formula at 0. The coefficients depend on the indexes only, which are public.
    """
    indexes = [share.index for share in shares]
    if not shares:
        raise ShareError("no key share was given")
    if len(set(indexes)) != len(indexes):
        raise ShareError("the same key share was given twice")
    if len({len(share.data) for share in shares}) != 1:
        raise ShareError("these key shares are of different length")
    plane = Field(len(shares[0].data))
    secret = plane.vector(b"")
    for share in shares:
        term = plane.scale(plane.vector(share.data), _coefficient_at_zero(share.index, indexes))
        secret = plane.add(secret, term)
    return plane.to_bytes(secret)


def _evaluate(plane: Field, coefficients: Sequence[int], x: int) -> int:
    """The polynomial at `x`, by Horner's rule; the constant coefficient stands first."""
    value = plane.vector(b"")
    for coefficient in reversed(coefficients):
        value = plane.add(plane.scale(value, x), coefficient)
    return value


def _coefficient_at_zero(index: int, indexes: Sequence[int]) -> int:
    """The product of x / (x - index) over the other indexes x; subtraction is XOR."""
    coefficient = 1
    for other in indexes:
        if other != index:
            coefficient = multiply(coefficient, multiply(other, invert(other ^ index)))
    return coefficient


def _from_base64url(text: str) -> bytes:
    """Strict: Python's own decoder skips foreign characters and ignores left-over bits. Raises ShareError."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ShareError("a key share is base64url text") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != text:
        raise ShareError("a key share is base64url text in canonical form")
    return raw


def _text_length(length: int) -> int:
    return ((length + 2) * 4 + 2) // 3
