"""Finding where a log begins when its marker is damaged, lost, or of another log.

A log is never given up because its marker is lost. A marker is believed if it was made with the chain's key
*and* belongs to the segments that are here: it names the first of them and the HMAC before it (`fits`). It is
searched for in this order:

1. in its two files beside the log (a log that lacks no segment needs no marker);
2. in the archive, which keeps a copy for each first entry (`audit-<first>.archived`) and the newest;
3. made again from the archive's segments, of which each HMAC and link is checked;
4. at the peers, which archive at the same places.

If none is found, the entries here still prove themselves, each by its HMAC: the first names its index and the
HMAC before it. Only the hashes of the archived part are missing. So a stand-in is made (`stand_in`): entries
are served, appended and trimmed, but what needs those hashes (checkpoints, proofs, archiving more) is refused
until the marker is found (`retention` goes on searching).

Everything here is blocking, but for `find_beginning` and `find`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.audit.log.repair import do_without, put_back
from services.audit.log.segments import Segments
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Marker
from strongbox.audit_log.chain import Entry, Keys, MissingKey, Tampered, Verifier, link, parse_line
from strongbox.audit_log.merkle import Frontier, leaf_hash
from strongbox.audit_log.scan import open_file, read_file, segment_path
from strongbox.audit_log.stored_hashes import row_path, unproved_path
from strongbox.store.etcd.errors import Unavailable

_LONGEST_LINE = 1 << 20  # bytes
_log = structlog.get_logger(__name__)


# Each peer's marker; b"": it has archived nothing; None: it does not answer.
Told = Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Copies:
    """Where markers are searched for, apart from the log's folder.

    `archive`: the archive's folder. `ask_peers`: asks each peer for its marker.
    """

    archive: Path | None = None
    ask_peers: Callable[[], Awaitable[Told]] | None = None


NO_COPIES = Copies()


@dataclass(frozen=True, slots=True)
class Found:
    """`marker`: the one that belongs here (None: none was found); `told`: what the peers said, if asked."""

    marker: Marker | None
    told: Told = ()


def fault_of(folder: Path, opened_at: Marker, keys: Keys) -> str:
    """What is wrong with the marker in a log's folder; "" when nothing is, or there are no segments.

    `opened_at`: the marker that was read when the log was opened.
    """
    here = segments_in(folder)
    if not here:
        return ""
    try:
        marker = read_file(folder / markers.NAME)
    except FileNotFoundError:
        marker = markers.BEGINNING
    except (OSError, ValueError) as error:
        return f"it cannot be read: {error}"
    if marker.first and not is_ours(marker, keys):
        return "it was not made with the chain's key"
    if marker != opened_at:
        return "it is another than a moment ago"
    if marker.segment not in here:
        return "it does not belong to these segments" if marker.first else "it is not there"
    return ""


async def find_beginning(
    log: Segments, keys: Keys, copies: Copies, mending: Callable[[str], None], *, is_trimmed: bool
) -> str:
    """Make the log begin at its marker, or at a stand-in; returns why every HMAC must be checked, or "".

    `mending` is told what is being mended. `is_trimmed`: the outbox no longer holds every record. If neither
    is found, the log stays as it is, and mending it is left to the caller. Raises OSError, EtcdError;
    Unavailable when that cannot be decided before a peer answers.
    """
    if log.stand_in:
        return ""
    fault = await asyncio.to_thread(fault_of, log.folder, log.marker, keys)
    if not fault:
        return ""
    mending(f"the marker of what is archived is being restored: {fault}")
    found = await find(log.folder, keys, copies)
    if found.marker is not None:
        await asyncio.shield(asyncio.to_thread(put_back, log, found.marker))
        return ""
    is_kept = await asyncio.to_thread(is_archived, log.folder, copies.archive)
    if not is_kept and not is_with_a_peer(log.folder, found.told):
        is_kept = await asyncio.to_thread(was_archived, log.folder, keys)
        is_kept = is_kept or (is_trimmed and not has_what_is_gone(log.folder, found.told))
    if is_kept:
        begins = await asyncio.to_thread(stand_in, log.folder, keys)
        if begins is not None:
            await asyncio.shield(asyncio.to_thread(do_without, log, begins))
            return f"its marker is lost: {fault}"
    return ""


async def find(folder: Path, keys: Keys, copies: Copies) -> Found:
    """Look everywhere for the marker of the segments in `folder`."""
    marker = await asyncio.to_thread(_find_here, folder, keys, copies.archive)
    if marker is not None or copies.ask_peers is None:
        return Found(marker)
    told = tuple(await copies.ask_peers())
    return Found(await asyncio.to_thread(_choose, folder, keys, told), told)


def stand_in(folder: Path, keys: Keys) -> Marker | None:
    """A marker without hashes, made of what the first entry here proves by its HMAC, or None."""
    here = segments_in(folder)
    first = first_entry(folder, here[0]) if here else None
    if first is None or not first.index:
        return None
    for term, key in keys.items():
        if link(key, first.prev_hmac, first).hmac == first.hmac:
            return markers.without_hashes(first.index, here[0], first.prev_hmac, term)
    return None


def is_archived(folder: Path, archive: Path | None) -> bool:
    """Whether the archive has the segment before the first that is here."""
    here = segments_in(folder)
    if archive is None or not here or not here[0]:
        return False
    return os.path.lexists(segment_path(archive, here[0] - 1))


def was_archived(folder: Path, keys: Keys) -> bool:
    """Whether a file beside the log says that the missing entries were archived, and not just lost.

    That is a damaged marker (one that is whole says itself what should be here), or the row of hashes, which
    is named after its first entry. Whoever deletes segments can forge both, so peers are asked first.
    """
    here = segments_in(folder)
    first = first_entry(folder, here[0]) if here else None
    if first is None:
        return False
    if any(_is_damaged(folder / name, keys) for name in (markers.NAME, markers.COPY)):
        return True
    return any(map(os.path.lexists, (row_path(folder, first.index), unproved_path(folder, first.index))))


def _is_damaged(path: Path, keys: Keys) -> bool:
    try:
        return not is_ours(read_file(path), keys)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def is_with_a_peer(folder: Path, told: Told) -> bool:
    """Whether a peer, by what it says of its beginning, has entries that are missing here."""
    here = segments_in(folder)
    first = first_entry(folder, here[0]) if here else None
    begins = [marker.first for text in told for marker in _parsed(text)]
    return b"" in told or (first is not None and any(begin < first.index for begin in begins))


def has_what_is_gone(folder: Path, told: Told) -> bool:
    """As `is_with_a_peer`; raises Unavailable when none says so, and not all have answered."""
    if is_with_a_peer(folder, told):
        return True
    if None in told:
        raise Unavailable("an audit peer does not say whether it has what is missing here")
    return False


def fits(folder: Path, marker: Marker, *, is_own: bool = False) -> bool:
    """Whether the log in `folder` can begin at this marker.

    A marker that is not this replica's own may only leave out segments that it names as moved.
    """
    here = segments_in(folder)
    if marker.segment not in here:
        return False
    moved = {one.name for one in marker.moved}
    left_out = (segment_path(folder, one).name for one in here if one < marker.segment)
    if not is_own and not moved.issuperset(left_out):
        return False
    found = first_entry(folder, marker.segment)
    return found is not None and (found.index, found.prev_hmac) == (marker.first, marker.prev_hmac)


def is_ours(marker: Marker, keys: Keys) -> bool:
    """Whether it was made with the chain's key; not if it names a term whose key is not there."""
    try:
        return marker.is_ours(keys)
    except MissingKey:
        return False


def segments_in(folder: Path) -> list[int]:
    """The numbers of the segments in a folder, ascending."""
    names = (path.stem.removeprefix("audit-") for path in folder.glob("audit-*.jsonl"))
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def first_entry(folder: Path, segment: int) -> Entry | None:
    """A segment's first entry, parsed but not verified; None when it cannot be read."""
    try:
        with segment_path(folder, segment).open("rb") as stream:
            return parse_line(stream.readline(_LONGEST_LINE))
    except (OSError, ValueError):
        return None


def _find_here(folder: Path, keys: Keys, archive: Path | None) -> Marker | None:
    for path in (folder / markers.NAME, folder / markers.COPY):
        for marker in _read_some(path):
            if is_ours(marker, keys) and fits(folder, marker, is_own=True):
                return marker
    here = segments_in(folder)
    if here == list(range(len(here))) and fits(folder, markers.BEGINNING):
        return markers.BEGINNING
    if archive is None:
        return None
    firsts = [entry.index for segment in here if (entry := first_entry(folder, segment))]
    for name in (*map(markers.archived_name, firsts), markers.NAME):
        for marker in _read_some(archive / name):
            if is_ours(marker, keys) and fits(folder, marker):
                return marker
    return _made_anew(folder, keys, archive)


def _read_some(path: Path) -> Iterator[Marker]:
    try:
        yield read_file(path)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        _log.error("a copy of the marker is of no use", file=path.name, why=str(error))


def _choose(folder: Path, keys: Keys, told: Told) -> Marker | None:
    for marker in (marker for text in told for marker in _parsed(text)):
        if is_ours(marker, keys) and fits(folder, marker):
            return marker
    return None


def _parsed(text: bytes | None) -> Iterator[Marker]:
    try:
        if text:
            yield markers.parse(text)
    except ValueError:
        return


def _made_anew(folder: Path, keys: Keys, archive: Path) -> Marker | None:
    """From the archive's segments up to the first that is here, if they lead there."""
    here = segments_in(folder)
    first = first_entry(folder, here[0]) if here else None
    if first is None or not first.index:
        return None
    verifier, frontier = Verifier(keys), Frontier()
    try:
        for segment in range(here[0]):
            with open_file(segment_path(archive, segment)) as stream:
                while line := stream.readline(_LONGEST_LINE):
                    verifier.check(line)
                    frontier.add(leaf_hash(line))
    except (OSError, ValueError, Tampered, MissingKey) as fault:
        _log.error("the archive's segments do not say where the log begins", why=str(fault))
        return None
    if (verifier.size, verifier.head) != (first.index, first.prev_hmac):
        return None
    made = Marker(verifier.size, here[0], verifier.head, verifier.term, frontier.peaks)
    return made.signed(keys)
