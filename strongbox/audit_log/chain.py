r"""The audit chain, as pure functions: an entry, how it is hashed, how its line is written and checked.

One entry is one line of JSON: the fourteen fields of `Entry` in their order, separators `,` and `:`, text as
UTF-8, a final newline. Escaped are the characters that JSON must escape and, as `\u` and four lower-case hex
digits, those that a reader could take for the end of a line or that change how the rest is shown (`_HIDDEN`).
So there is exactly one text for an entry, the files of all replicas are byte-identical, and a line that
parses but is written otherwise is a fault.

Earlier versions escaped only what JSON must. Their lines stay what they are, byte for byte, and are read as
well (`Entry.earlier`); what is hashed does not depend on how a line is escaped.

What is hashed, byte for byte:

    b"strongbox audit entry v1\0"
    then for each of the first thirteen fields, in order: 4 bytes big-endian length, then the field
        numbers (index, version) as ASCII decimal; everything else as UTF-8, `prev_hmac` as its 64 hex digits

    hmac = HMAC-SHA256(key, that), as 64 hex digits

The lengths keep two fields from being shifted into each other; `prev_hmac` inside makes each entry vouch for
all before it. The first entry's `prev_hmac` is 64 zeros. Without the key nobody can write an entry that
verifies; whoever has it can rewrite the whole log, which a checkpoint kept elsewhere shows.

Keys have terms, the first is 1. An entry with op `RotateAuditKey` and outcome `ok` announces the term its
version names, the next one: it is still hashed under the old key, which so vouches for the change, and
everything after it under the new.
"""

from __future__ import annotations

import hmac as hmac_module
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from json.encoder import encode_basestring

LABEL = b"strongbox audit entry v1\0"
GENESIS = "0" * 64
KEY_BYTES = 32
FIRST_TERM = 1
ROTATE = "RotateAuditKey"
Keys = Mapping[int, bytes]  # by term

# DEL and C1 controls (NEL), soft hyphen, Arabic letter mark, zero-width and bidirectional marks, line and
# paragraph separators, invisible operators, byte order mark, interlinear marks. All are in the basic plane.
_HIDDEN = re.compile("[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def minimal(text: str) -> str:
    """A JSON string with nothing escaped but what JSON must."""
    return encode_basestring(text)


def quoted(text: str) -> str:
    """A JSON string that is one line, and shows what it holds, wherever it is read."""
    written = minimal(text)
    return written if written.isascii() and "\x7f" not in written else _HIDDEN.sub(_escaped, written)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


class Tampered(Exception):
    """The log is not what was written: the first bad index, and why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"entry {index}: {reason}")
        self.index = index
        self.reason = reason


class MissingKey(Exception):
    """The log goes on under a key that is not given."""

    def __init__(self, index: int, term: int) -> None:
        super().__init__(f"from entry {index} on key term {term} is needed")
        self.index = index
        self.term = term


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation in its place. `ts`: RFC 3339, UTC, milliseconds; `producer_seq`: batch.part.item."""

    index: int
    ts: str
    request_id: str
    accessor: str
    op: str
    path: str
    version: int
    outcome: str
    reason: str
    client: str
    producer: str
    producer_seq: str
    prev_hmac: str
    hmac: str
    earlier: bool = field(default=False, compare=False)  # its line is written as earlier versions did

    def line(self) -> bytes:
        """The one text of this entry, newline included."""
        quote = minimal if self.earlier else quoted
        values = ((name, getattr(self, name)) for name in _FIELDS)
        parts = (f'"{name}":{value if name in _NUMBERS else quote(value)}' for name, value in values)
        return ("{" + ",".join(parts) + "}\n").encode()

    @property
    def announces(self) -> int:
        """The key term of the entries after this one; 0 when it stays as it is."""
        return self.version if self.op == ROTATE and self.outcome == "ok" else 0


_FIELDS = tuple(one.name for one in fields(Entry))[:-1]
_NUMBERS = frozenset({"index", "version"})
_TYPES = [int if name in _NUMBERS else str for name in _FIELDS]


def timestamp(ms: int) -> str:
    """RFC 3339 text of milliseconds since the epoch, such as `2026-01-31T12:00:00.123Z`."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def canonical(entry: Entry) -> bytes:
    """What the HMAC is computed over; `entry.hmac` is not part of it."""
    parts = [LABEL]
    for name in _FIELDS[:-1]:
        data = str(getattr(entry, name)).encode()
        parts += (len(data).to_bytes(4, "big"), data)
    return b"".join(parts)


def mac(key: bytes, entry: Entry) -> str:
    """HMAC-SHA256 (RFC 2104, FIPS 180-4) under the chain's 32-byte key, as 64 hex digits."""
    if len(key) != KEY_BYTES:
        raise ValueError("the chain's key has 32 bytes")
    return hmac_module.digest(key, canonical(entry), "sha256").hex()


def link(key: bytes, prev_hmac: str, entry: Entry, index: int | None = None) -> Entry:
    """`entry` chained on `prev_hmac`, at `index` (None: at its own)."""
    values = {name: getattr(entry, name) for name in _FIELDS}
    values["prev_hmac"] = prev_hmac
    values["index"] = entry.index if index is None else index
    values["hmac"] = mac(key, Entry(**values))
    return Entry(**values)


def parse_line(line: bytes) -> Entry:
    """The entry a line holds. Raises ValueError, with a reason, unless written exactly as `line()` does."""
    if not line.endswith(b"\n"):
        raise ValueError("the line is cut off")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("the line is not JSON") from None
    if not isinstance(values, dict) or tuple(values) != _FIELDS:
        raise ValueError("the line does not have an entry's fields")
    if [type(value) for value in values.values()] != _TYPES:
        raise ValueError("a field has the wrong type")
    entry = Entry(**values)
    if _written(entry) == line:
        return entry
    earlier = replace(entry, earlier=True)
    if _written(earlier) == line:
        return earlier
    raise ValueError("the line is not written in the one canonical way")


def _written(entry: Entry) -> bytes:
    try:
        return entry.line()
    except UnicodeEncodeError:  # a lone surrogate, smuggled in as an escape
        return b""


class Verifier:
    """Checks one log line by line, in constant memory; without keys only form, numbering and links."""

    def __init__(
        self, keys: Keys | None = None, size: int = 0, head: str = GENESIS, term: int = FIRST_TERM
    ) -> None:
        """Go on after `size` entries, whose last has the HMAC `head`, under the key of `term`."""
        self.size = size
        self.head = head
        self.term = term
        self._keys = keys

    def check(self, line: bytes) -> Entry:
        """Accept the next line.

        Raises Tampered, which names the index that should have stood here, and MissingKey.
        """
        try:
            entry = parse_line(line)
        except ValueError as error:
            raise Tampered(self.size, str(error)) from None
        reason = self._fault(entry)
        if reason:
            raise Tampered(self.size, reason)
        self.size += 1
        self.head = entry.hmac
        if entry.announces:
            self.term = entry.announces
        return entry

    def _fault(self, entry: Entry) -> str:
        if entry.index != self.size:
            return f"index {entry.index} stands where {self.size} belongs"
        if not hmac_module.compare_digest(entry.prev_hmac.encode(), self.head.encode()):
            return "prev_hmac is not the HMAC of the entry before"
        if self._keys is None:
            return ""
        key = self._keys.get(self.term)
        if key is None:
            raise MissingKey(self.size, self.term)
        if not hmac_module.compare_digest(entry.hmac.encode(), mac(key, entry).encode()):
            return "the HMAC does not match the entry"
        return "" if entry.announces in (0, self.term + 1) else "a key term is announced out of turn"
