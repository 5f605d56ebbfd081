"""Pages of a listing: a page token is where the last page ended, in base64url; it grants nothing."""

from __future__ import annotations

import base64
import binascii

from strongbox.errors import InvalidInput
from strongbox.store import keyspace

DEFAULT_SIZE = 100
MAX_SIZE = 256


def page_size(asked: int) -> int:
    """How many rows a page has; 100 unless asked, at most 256. Raises `InvalidInput`."""
    if asked < 0:
        raise InvalidInput("page_size is not negative")
    return min(asked or DEFAULT_SIZE, MAX_SIZE)


def page_range(prefix: bytes, token: str) -> tuple[bytes, bytes]:
    """`[start, end)` of what follows the page that gave `token`. Raises `InvalidInput`."""
    end = keyspace.prefix_end(prefix)
    if not token:
        return prefix, end
    try:
        last = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("page_token is not one of ours") from None
    return prefix + last + b"\0", end


def next_token(prefix: bytes, keys: list[bytes], size: int) -> str:
    """The token of the next page; empty when this one was not full."""
    if len(keys) < size:
        return ""
    return base64.urlsafe_b64encode(keys[-1].removeprefix(prefix)).rstrip(b"=").decode()
