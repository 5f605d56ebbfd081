"""Key files for `strongbox-verify --key-file`: what `POST /v1/audit/export-key` answers.

One line for each key term, `<term>:<64 hex digits>`. A file may have Windows line ends and empty lines.
"""

from __future__ import annotations

from collections.abc import Mapping

from strongbox.audit_log.chain import FIRST_TERM, KEY_BYTES


def parse_keys(text: str) -> dict[int, bytes]:
    """The chain's keys by term. Raises ValueError, which quotes nothing."""
    keys: dict[int, bytes] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        term, colon, digits = line.partition(":")
        if not colon or not (term.isascii() and term.isdigit()) or len(term) > 9 or int(term) in keys:
            raise ValueError("a line is a key term, a colon, and the key")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            raise ValueError("a key has 64 hex digits") from None
        if len(key) != KEY_BYTES:
            raise ValueError("a key has 64 hex digits")
        keys[int(term)] = key
    if FIRST_TERM not in keys:
        raise ValueError("the first term is not there")
    return keys


def format_keys(keys: Mapping[int, bytes]) -> str:
    """What `parse_keys` reads."""
    return "".join(f"{term}:{keys[term].hex()}\n" for term in sorted(keys))
