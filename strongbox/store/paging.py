"""Pages of a listing: how long one is, and the token that says where the next begins; it grants nothing.

A page ends wherever its reads have ended, which may be at a name that the caller must not see. So the
position is sealed: the token tells nothing of it (nor of its length, but in steps of `STEP` bytes), is good
only for the listing that it was made for, and cannot be made by anybody else.

    token = base64url(key term (4 bytes) ‖ nonce ‖ tag ‖ AES-256-GCM(length (2 bytes) ‖ position ‖ zeros))

The key is derived from the record key of that term, which every replica holds while unsealed; the listing's
etcd prefix is authenticated with it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from strongbox.crypto.aead import NONCE_BYTES, TAG_BYTES, Aead, Box, canonical_aad, derive
from strongbox.crypto.errors import IntegrityError
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import InvalidInput
from strongbox.store import keyspace

DEFAULT_SIZE = 100
MAX_SIZE = 1000
MAX_POSITION = 1024  # bytes: twice the longest path
STEP = 64
_MAX_TOKEN = 2048  # characters: more than any of ours has
_TERM_BYTES, _LENGTH_BYTES = 4, 2
_HEADER = _TERM_BYTES + NONCE_BYTES + TAG_BYTES
_LABEL: Final = "page token v1"


def page_size(asked: int) -> int:
    """How many rows a page has: 1 to 1000, 100 when not asked (0). Raises `InvalidInput`."""
    if not 0 <= asked <= MAX_SIZE:
        raise InvalidInput(f"page_size is 1 to {MAX_SIZE}")
    return asked or DEFAULT_SIZE


def page_range(keys: RecordKeys, prefix: bytes, token: str) -> tuple[bytes, bytes]:
    """`[start, end)` of what follows the page that gave `token`. Raises `InvalidInput`."""
    return prefix + position_of(keys, prefix, token), keyspace.prefix_end(prefix)


def next_token(keys: RecordKeys, prefix: bytes, found: Sequence[bytes], size: int) -> str:
    """The token of the page after these keys; empty when they are fewer than `size`."""
    if len(found) < size:
        return ""
    return token_of(keys, prefix, found[-1].removeprefix(prefix) + b"\0")


def token_of(keys: RecordKeys, prefix: bytes, position: bytes) -> str:
    """The page token that leads to this position (what follows the listing's prefix in the key)."""
    padded = len(position).to_bytes(_LENGTH_BYTES, "big") + position
    padded += bytes(-len(padded) % STEP)
    term = keys.newest.to_bytes(_TERM_BYTES, "big")
    box = _cipher(keys, keys.newest).seal(padded, canonical_aad(_LABEL, term, prefix))
    return base64.urlsafe_b64encode(term + box.nonce + box.tag + box.ciphertext).rstrip(b"=").decode()


def position_of(keys: RecordKeys, prefix: bytes, token: str) -> bytes:
    """The position a page token leads to; the beginning when it is empty. Raises `InvalidInput`."""
    if not token:
        return b""
    raw = _decoded(token)
    term, rest = raw[:_TERM_BYTES], raw[_TERM_BYTES:]
    nonce, tag, sealed = rest[:NONCE_BYTES], rest[NONCE_BYTES:][:TAG_BYTES], raw[_HEADER:]
    number = int.from_bytes(term, "big")
    if number not in keys.by_term:
        raise _not_ours()
    try:
        padded = _cipher(keys, number).open(Box(nonce, sealed, tag), canonical_aad(_LABEL, term, prefix))
    except IntegrityError:
        raise _not_ours() from None
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    return padded[_LENGTH_BYTES:][:length]


def _cipher(keys: RecordKeys, term: int) -> Aead:
    return Aead(derive(keys.by_term[term], _LABEL))


def _decoded(token: str) -> bytes:
    if len(token) > _MAX_TOKEN:
        raise _not_ours()
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _not_ours() from None


def _not_ours() -> InvalidInput:
    return InvalidInput("page_token is not one of ours")
