"""One unambiguous byte string for a list of parts: what is authenticated beside a ciphertext, or under a MAC.

    label ‖ parts, each as: type (1 byte: b, s, i) ‖ length (8 bytes, big-endian) ‖ content

* Every part is preceded by its length, so no two different lists give the same bytes: ("ab", "c") and
  ("a", "bc") differ. A type byte keeps 1, "1" and b"1" apart.
* The label is the first part, and says what the bytes are for: a ciphertext or MAC made for one purpose
  never verifies for another, even under the same key.
* Integers are 0..2**63-1, 8 bytes, big-endian; text is UTF-8 as it stands (canonical form is the business of
  strongbox.paths).
"""

from __future__ import annotations

_MAX_INT = 2**63 - 1
_PREFIX = "strongbox "


def canonical_aad(label: str, *parts: bytes | str | int) -> bytes:
    """The encoding of `label` and `parts`. Raises ValueError (integer out of range) and TypeError."""
    return b"".join(map(_encode, (_PREFIX + label, *parts)))


def _encode(part: bytes | str | int) -> bytes:
    kind, content = _content(part)
    return kind + len(content).to_bytes(8, "big") + content


def _content(part: bytes | str | int) -> tuple[bytes, bytes]:
    if isinstance(part, str):
        return b"s", part.encode("utf-8")
    if isinstance(part, bytes):
        return b"b", part
    # bool is an int to Python, but True and 1 would then be the same bytes: refused.
    if not isinstance(part, int) or isinstance(part, bool):
        raise TypeError("a part is bytes, text or an integer")
    if not 0 <= part <= _MAX_INT:
        raise ValueError("an integer part is 0..2**63-1")
    return b"i", part.to_bytes(8, "big")
