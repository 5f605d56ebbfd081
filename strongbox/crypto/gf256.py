"""GF(2^8) with the AES polynomial x^8 + x^4 + x^3 + x + 1 (FIPS 197 §4.2): no tables, no branches.

* Elements are integers 0..255; addition is XOR.
* A `Vector` is a secret's bytes in one big integer, so that no step looks at a single secret byte: CPython
  keeps the integers up to 256 in a table of its own, which a per-byte loop would index by secrets.
* The only multiplication secrets need is by a *public* element (a share's index, or a Lagrange coefficient
  made of indexes): 8 rounds, each the same work whatever the bytes are.
* Big integers drop leading zeros, and so would show how many a secret has. A guard byte of 0xff above the
  secret keeps every operand at the same length; it is set again after each operation.
"""

from __future__ import annotations

from dataclasses import dataclass

_LOW_BYTE_OF_POLYNOMIAL = 0x1B
_GUARD = 0xFF


def multiply(a: int, b: int) -> int:
    """The product of two elements: 8 rounds of shift and masked addition."""
    product = 0
    for _ in range(8):
        product ^= a * (b & 1)
        a = ((a & 0x7F) << 1) ^ ((a >> 7) * _LOW_BYTE_OF_POLYNOMIAL)
        b >>= 1
    return product


def invert(a: int) -> int:
    """The inverse of a nonzero element: a^254, since a^255 = 1 for each. Always 14 products; 0 gives 0."""
    result = 1
    # 254 = 0b11111110: seven factors a^2, a^4, …, a^128.
    for _ in range(7):
        a = multiply(a, a)
        result = multiply(result, a)
    return result


@dataclass(frozen=True, slots=True)
class Field:
    """Vectors of `length` bytes. Constants are made once per length, which is public."""

    length: int

    def vector(self, data: bytes) -> int:
        """`length` bytes as a guarded vector."""
        return self._guarded(int.from_bytes(data, "big"))

    def to_bytes(self, vector: int) -> bytes:
        """The bytes of a vector; the guard is dropped."""
        return vector.to_bytes(self.length + 1, "big")[1:]

    def add(self, one: int, other: int) -> int:
        """Byte by byte: XOR."""
        return self._guarded(one ^ other)

    def scale(self, vector: int, scalar: int) -> int:
        """Every byte multiplied by `scalar`, which is public."""
        product = self.vector(b"")
        for bit in range(8):
            product = self.add(product, vector * (scalar >> bit & 1))
            vector = self._doubled(vector)
        return product

    def _doubled(self, vector: int) -> int:
        """Every byte times x: shifted, and where its top bit fell out, the polynomial added."""
        overflow = (vector >> 7) & self._each(0x01)
        shifted = (vector & self._each(0x7F)) << 1
        return self._guarded(shifted ^ overflow * _LOW_BYTE_OF_POLYNOMIAL)

    def _guarded(self, vector: int) -> int:
        return vector | _GUARD << 8 * self.length

    def _each(self, byte: int) -> int:
        """The same byte in every place, the guard's too."""
        return int.from_bytes(bytes([byte]) * (self.length + 1), "big")
