"""Pages of a listing: how long one is, and the token that says where the next begins; it grants nothing."""

from __future__ import annotations

import base64
import binascii

from strongbox.errors import InvalidInput

DEFAULT_SIZE = 100
MAX_SIZE = 1000
MAX_POSITION = 1024  # bytes: twice the longest path


def page_size(asked: int) -> int:
    """How many rows a page has; 100 unless asked, at most 1000. Raises `InvalidInput`."""
    if asked < 0:
        raise InvalidInput("page_size is not negative")
    return min(asked or DEFAULT_SIZE, MAX_SIZE)


def token_of(position: bytes) -> str:
    """The page token that leads to this position (what follows the listing's prefix in the key)."""
    return base64.urlsafe_b64encode(position).rstrip(b"=").decode()


def position_of(token: str) -> bytes:
    """The position a page token leads to; the beginning when it is empty. Raises `InvalidInput`."""
    try:
        position = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("page_token is not one of ours") from None
    if len(position) > MAX_POSITION or token_of(position) != token:
        raise InvalidInput("page_token is not one of ours")
    return position
