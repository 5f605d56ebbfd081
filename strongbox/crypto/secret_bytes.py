"""Bytes that do not leave by accident.

* Printing, formatting, logging, pickling, copying and `bytes()` give nothing away; only `expose()` and
  `view()` do, so every place a secret passes through is found by searching for these words.
* Equality takes the same time whatever the contents are (the lengths are public).
* `wipe()` zeroes the one buffer this object owns. What it cannot reach, and what is therefore not promised:
  copies made by `expose()`, by protobuf and by the interpreter. Only the end of the process clears those.
* After `wipe()` every use raises `WipedError`: zeros must never pass for a key.
"""

from __future__ import annotations

import hmac
from types import TracebackType
from typing import NoReturn

from strongbox.crypto.errors import WipedError


class SecretBytes:
    """Owns one `bytearray`."""

    __slots__ = ("_buffer", "_wiped")
    __hash__ = None  # type: ignore[assignment]  # the timing of a hash table would show equal secrets

    def __init__(self, owned: bytearray) -> None:
        """Take over `owned`, which nobody else may keep: it is zeroed in place by `wipe()`."""
        self._buffer = owned
        self._wiped = False

    @classmethod
    def copy_of(cls, data: bytes | bytearray | memoryview) -> SecretBytes:
        """Own a copy; `data` itself stays where it is."""
        return cls(bytearray(data))

    def expose(self) -> bytes:
        """An immutable copy, which nothing can wipe: use it at once, keep it nowhere. Raises WipedError."""
        return bytes(self.view())

    def view(self) -> memoryview:
        """The buffer itself, read-only, not a copy; a view reads zeros after `wipe()`. Raises WipedError."""
        if self._wiped:
            raise WipedError
        return memoryview(self._buffer).toreadonly()

    def wipe(self) -> None:
        """Zero the buffer. Can be repeated."""
        # A slice of the same length is assigned in place; the old bytes are overwritten, not released.
        self._buffer[:] = bytes(len(self._buffer))
        self._wiped = True

    def __enter__(self) -> SecretBytes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __len__(self) -> int:
        return len(self._buffer)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        # compare_digest's time depends on the lengths only; == would tell how long a common prefix is.
        return hmac.compare_digest(self.view(), other.view())

    def __repr__(self) -> str:
        return "SecretBytes(…)"

    def __bytes__(self) -> NoReturn:
        raise TypeError("a secret is copied by expose() only")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # pickle, copy and deepcopy all come through here.
        raise TypeError("a secret is neither pickled nor copied")
