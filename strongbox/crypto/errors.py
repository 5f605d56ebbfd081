"""What crypto refuses.

    ValueError
    ├── IntegrityError   it does not authenticate: altered, moved, or under another key
    ├── ShareError       these key shares cannot be split, read or combined
    └── WipedError       the secret was wiped; there is nothing left to use

The texts are fixed: they quote no input, since any input here may be a secret.
"""

from __future__ import annotations


class IntegrityError(ValueError):
    """Ciphertext, tag, nonce, key and AAD do not belong together; which of them is wrong is not said."""

    def __init__(self) -> None:
        super().__init__("the ciphertext does not authenticate")


class ShareError(ValueError):
    """A key share, or a set of them, that is malformed."""


class WipedError(ValueError):
    """Used after `wipe()`. Zeros are never handed out in place of a wiped key."""

    def __init__(self) -> None:
        super().__init__("this secret was wiped")
