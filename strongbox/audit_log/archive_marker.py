r"""The marker: what archiving leaves in the place of the segments that were moved away. No I/O.

One line of JSON in `audit.archived` beside the log. It says where the kept part begins, and holds what is
needed to go on without the moved part: the HMAC of the last entry that was moved, the key term there, and the
Merkle frontier (the hashes of the complete subtrees, the largest first). Also: the segments that the last
archiving moved, and a signed checkpoint that covers all that was moved.

It is authenticated:

    mac = HMAC-SHA256(the chain's key of `term`, b"strongbox audit marker v1\0" ‖ the line with an empty mac)

with the chain's own key, because whoever can write entries can make any log anyway. An entry's HMAC begins
with another label that ends in a zero byte, and neither label begins with the other, so no entry's HMAC is a
marker's mac. Without the key, the kept entries still prove most of it: the first of them names the
HMAC before it, and frontier and entries together lead to the root of a signed checkpoint.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from strongbox.audit_log.chain import FIRST_TERM, GENESIS, Keys, MissingKey
from strongbox.audit_log.merkle import HASH_BYTES, Frontier

NAME = "audit.archived"
COPY = "audit.archived-copy"  # the same beside it, written first
_LABEL = b"strongbox audit marker v1\0"
_FORMAT = 1
_DIGITS = 64


class Archived(Exception):
    """Entries below `first` are not in this log any more: they are in the archive."""

    def __init__(self, first: int, where: str = "") -> None:
        super().__init__(f"entries below {first} are archived{where}")
        self.first = first


class Unproven(Archived):
    """The hashes of what is archived are not known here: the marker that had them is lost."""

    def __init__(self, first: int) -> None:
        super().__init__(first, ", and the marker with their hashes is lost")


class Moved(NamedTuple):
    """One segment that was moved: its file's name, its first entry, its SHA-256 (hex)."""

    name: str
    first: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Marker:
    """`first`: the first entry that is kept, at the beginning of segment `segment`.

    `prev_hmac`: the HMAC of the entry before. `peaks`: the frontier of the first `first` entries.
    """

    first: int
    segment: int
    prev_hmac: str
    term: int
    peaks: tuple[bytes, ...]
    moved: tuple[Moved, ...] = ()
    checkpoint: str = ""
    mac: str = ""

    def pack(self) -> bytes:
        """The one text of this marker, newline included."""
        told: dict[str, Any] = {"format": _FORMAT, **asdict(self)}
        told["peaks"] = [peak.hex() for peak in self.peaks]
        told["moved"] = [list(one) for one in self.moved]
        return json.dumps(told, separators=(",", ":")).encode() + b"\n"

    def signed(self, keys: Keys) -> Marker:
        """With its mac. Raises MissingKey."""
        return replace(self, mac=self._mac(keys))

    def is_ours(self, keys: Keys) -> bool:
        """Whether somebody with the chain's key made it. Raises MissingKey."""
        return hmac.compare_digest(self.mac.encode(), self._mac(keys).encode())

    @property
    def has_hashes(self) -> bool:
        """Whether it has the hashes of what is archived: one made in place of a lost one has not."""
        return bool(self.mac) or not self.first

    def frontier(self) -> Frontier:
        """The tree over all that was moved."""
        return Frontier(self.first, self.peaks)

    def _mac(self, keys: Keys) -> str:
        key = keys.get(self.term)
        if key is None:
            raise MissingKey(self.first, self.term)
        return hmac.digest(key, _LABEL + replace(self, mac="").pack(), "sha256").hex()


BEGINNING = Marker(0, 0, GENESIS, FIRST_TERM, ())  # of a log of which nothing was archived


def without_hashes(first: int, segment: int, prev_hmac: str, term: int) -> Marker:
    """A marker made from the first kept entry alone, in place of a lost one; it is never written to disk."""
    return Marker(first, segment, prev_hmac, term, (bytes(HASH_BYTES),) * first.bit_count())


def archived_name(first: int) -> str:
    """The file in the archive with a copy of the marker of logs that begin at entry `first`."""
    return f"audit-{first}.archived"


def parse(text: bytes) -> Marker:
    """The marker that `pack` wrote. Raises ValueError for anything else."""
    try:
        told = json.loads(text)
        if told.pop("format") != _FORMAT:
            raise ValueError("the marker is of another version")
        peaks = tuple(map(bytes.fromhex, told.pop("peaks")))
        moved = tuple(Moved(*one) for one in told.pop("moved"))
        found = Marker(peaks=peaks, moved=moved, **told)
        if found.pack() != text or not _is_possible(found):
            raise ValueError("the marker says what cannot be")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is not a marker of archived segments: {error}") from None
    return found


def _is_possible(marker: Marker) -> bool:
    numbers = (marker.first, marker.segment, marker.term)
    return (
        all(type(number) is int and number > 0 for number in numbers)
        and all(isinstance(text, str) for text in (marker.prev_hmac, marker.checkpoint, marker.mac))
        and len(marker.prev_hmac) == len(marker.mac) == _DIGITS
        and len(marker.peaks) == marker.first.bit_count()
        and all(len(peak) == HASH_BYTES for peak in marker.peaks)
    )
