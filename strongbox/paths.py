"""Paths and names: canonical or refused, decided once, on the raw text, for REST and gRPC alike.

A path is 1..512 bytes of UTF-8 in NFC, segments split by `/`; no empty, `.` or `..` segment; case-sensitive.
It has no `%` (so nothing is ever decoded twice), no backslash (the gateway refuses one that is
percent-encoded, as every HTTP library sends it), and no character that is not seen: no control character, no
line or paragraph separator, nothing that turns the direction of text or has no width. So what a log or a
screen shows is one path, and the whole of it. Names of policies, users, roles and connections are
`[A-Za-z0-9._-]{1,128}` and are compared case-folded: `fold_name` is their key in etcd.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from strongbox.errors import InvalidInput, InvalidPath

MAX_PATH_BYTES = 512
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# Of other categories, and invisible all the same (Unicode's Default_Ignorable_Code_Point): joiners, fillers,
# variation selectors.
_FILLERS = (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0)
_WITHOUT_WIDTH = frozenset(map(chr, (*_FILLERS, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class SecretPath:
    """A secret's canonical path, such as `app/db_password`."""

    text: str

    @classmethod
    def parse(cls, raw: str) -> SecretPath:
        """Accept canonical text only. Raises `InvalidPath`, which never quotes the path."""
        require_canonical(raw)
        return cls(raw)

    @property
    def policy_path(self) -> str:
        """What policies speak of: `secret/<path>`."""
        return f"secret/{self.text}"


@dataclass(frozen=True, slots=True)
class DirectoryPath:
    """A listing's prefix without its final slash; empty is the root."""

    text: str

    @classmethod
    def parse(cls, raw: str) -> DirectoryPath:
        """Accept `""`, `a/b` and `a/b/` (one final slash is dropped). Raises `InvalidPath`."""
        trimmed = raw[:-1] if raw.endswith("/") else raw
        if trimmed:
            require_canonical(trimmed)
        elif raw:
            raise InvalidPath("a path has no empty segment")
        return cls(trimmed)

    @property
    def prefix(self) -> str:
        """The prefix its children share: `a/b/`, or nothing at the root."""
        return f"{self.text}/" if self.text else ""

    @property
    def policy_path(self) -> str:
        """Listing P is authorized on `secret/P/`."""
        return f"secret/{self.prefix}"


def require_canonical(raw: str) -> None:
    """Raise `InvalidPath` unless `raw` is a canonical path."""
    if not raw:
        raise InvalidPath("a path is needed")
    if len(raw.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise InvalidPath(f"a path has at most {MAX_PATH_BYTES} bytes")
    if "%" in raw or "\\" in raw:
        raise InvalidPath("a path has no percent sign and no backslash")
    if any(_is_unseen(c) for c in raw):
        raise InvalidPath("a path has no control character and none that is invisible")
    if unicodedata.normalize("NFC", raw) != raw:
        raise InvalidPath("a path is in Unicode form NFC")
    if any(segment in ("", ".", "..") for segment in raw.split("/")):
        raise InvalidPath("a path has no empty, '.' or '..' segment")


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN or character in _WITHOUT_WIDTH


def require_name(raw: str, what: str) -> str:
    """Return `raw` if it is a legal name of a `what` (policy, user …). Raises `InvalidInput`."""
    if not _NAME.match(raw) or raw in (".", ".."):
        raise InvalidInput(f"the name of a {what} is 1 to 128 of A-Z a-z 0-9 . _ -")
    return raw


def fold_name(name: str) -> str:
    """The form under which names are compared: two names that fold alike cannot both exist."""
    return name.casefold()
