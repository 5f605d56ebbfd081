"""Where a replica goes on from after a start, and whether its log on disk is to be trusted.

* Archived entries are not read: the log begins at its marker, which the chain's key must have made. If the
  marker is damaged, lost, or of another log, the right one is searched for (`find_beginning`); the entries
  stay as they are.
* The newest known position that the log confirms is taken: this replica's last report in etcd, the mark, or
  the empty chain.
* The log is in doubt when opening found damage, when it has another entry than a known position, another root
  than the newest signed checkpoint, or fewer entries than this replica has reported. Then every HMAC is
  checked and the log cut back to what is proved (`repair`); what is missing is then fetched like any other
  history.
* A log that took a true change of keys for a false one differs from the others from there on. It is cut back
  to before that and fetches the rest again, from a peer if the mark is beyond that point. But if the mark or
  the newest signed checkpoint confirms the entries that follow, they stay: history is not rewritten.
* If every HMAC is right and the log still contradicts a known position or the checkpoint, it is a second
  chain under our own keys: `Broken`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from services.audit.following.outbox_reader import UNREADABLE
from services.audit.following.position import BEGINNING, Position
from services.audit.keys import OpenKeys
from services.audit.log.find_beginning import NO_COPIES, Copies, find_beginning
from services.audit.log.repair import cut_back, mend
from services.audit.log.segments import Broken, Segments
from strongbox.audit_log.chain import ROTATE
from strongbox.audit_log.checkpoint import BadCheckpoint, Checkpoint, verify
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, rows_of

_REFUSED = f'"op":"{UNREADABLE}"'.encode()
_CHANGES = f'"op":"{ROTATE}"'.encode()
_log = structlog.get_logger(__name__)


async def find_start(
    etcd: Etcd,
    log: Segments,
    keys: OpenKeys,
    report_key: bytes,
    mending: Callable[[str], None],
    copies: Copies = NO_COPIES,
) -> Position:
    """The position to go on from. `mending` is told what is being mended; `copies` says where markers are.

    Raises EtcdError, OSError, Broken, MissingKey.
    """
    wanted = (report_key, keyspace.AUDIT_MARK, keyspace.AUDIT_CHECKPOINT)
    seen = await etcd.transact(txn.txn([], map(txn.range_, wanted)), idempotent=True)
    report, mark, signed = (rows_of(part.response_range) for part in seen.responses)
    reported, agreed = ([Position.parse(row.value) for row in rows] for rows in (report, mark))
    known = [*reported, *agreed]
    checkpoint = read_checkpoint(signed[0].value, keys) if signed else None
    is_trimmed = any(position.size for position in agreed)
    unchecked = await find_beginning(log, keys.chain, copies, mending, is_trimmed=is_trimmed)
    doubt = _fault_of(log, keys, reported) or unchecked
    mended = bool(doubt)
    if doubt:
        await _mend(log, keys, doubt, mending)
    # A log that went astray contradicts the others though every HMAC is right: so this comes before
    # `doubt_of`.
    was_cut = await _cut_back_if_astray(log, keys, reported, agreed, checkpoint, mending)
    doubt = await asyncio.to_thread(doubt_of, log, known, checkpoint)
    if doubt and not mended:
        await _mend(log, keys, doubt, mending)
        doubt = await asyncio.to_thread(doubt_of, log, known, checkpoint)
    if doubt:
        raise Broken(f"{doubt}, though every HMAC is right")
    longest = max((position.size for position in known), default=0)
    if longest > log.size:
        _log.error("the audit log is shorter than it was", entries=log.size, known=longest)
    if was_cut and log.size and any(position.size > log.size for position in agreed):
        # A peer has the entries that were agreed on; a replay of the outbox might make others.
        return Position(log.size, log.head, 0)
    usable = [position for position in known if log.first <= position.size <= log.size]
    if not usable and log.first:
        if longest <= log.size:
            raise Broken("etcd knows of no entry from the first one on that is not archived here")
        # What is missing comes from a peer: nothing is replayed on a log that lacks its beginning.
        return Position(log.first, log.marker.prev_hmac, 0)
    return max(usable, default=BEGINNING, key=lambda position: (position.size, position.revision))


async def _mend(log: Segments, keys: OpenKeys, doubt: str, mending: Callable[[str], None]) -> None:
    mending(f"the audit log is damaged and being mended: {doubt}")
    # Shielded, so that it ends even if a sealing cancels this task: no second one may begin beside it.
    await asyncio.shield(asyncio.to_thread(mend, log, keys.chain))


async def _cut_back_if_astray(
    log: Segments,
    keys: OpenKeys,
    reported: Sequence[Position],
    agreed: Sequence[Position],
    checkpoint: Checkpoint | None,
    mending: Callable[[str], None],
) -> bool:
    """Cut the log back to where it went astray, unless the rest was agreed on; returns whether it was cut."""
    come = max((position.revision for position in reported), default=0)
    astray = await asyncio.to_thread(gone_astray, log, keys, come)
    if astray is None:
        return False
    if await asyncio.to_thread(is_agreed_beyond, log, astray, agreed, checkpoint):
        _log.error("a true change of keys was taken for a false one, and that was agreed on", entry=astray)
        return False
    mending(f"the audit log took a true change of keys for a false one, and is cut back to entry {astray}")
    await asyncio.shield(asyncio.to_thread(cut_back, log, astray))
    return True


def gone_astray(log: Segments, keys: OpenKeys, revision: int) -> int | None:
    """The first entry that may be wrong because this log missed a change of keys, or None. Blocking.

    A key's record and its announcement are put by one transaction, so a log that has come as far as a key's
    revision has its announcement, or refused it (an earlier version did when a seal replica could not open
    the key). Which entry is the refusal is not known, so the first that can be it is returned. `revision`:
    how far this log has come, by this replica's own report; the reports of others may be beyond a key of
    which this replica has not heard. Raises OSError.
    """
    announced = log.announced()
    missed = sorted(term for term, made in keys.created.items() if term not in announced and made <= revision)
    if not missed:
        return None
    index, start = log.first, None
    for line in log.read(log.first):
        if _REFUSED in line and start is None:
            start = index
        elif _CHANGES in line:
            start = None  # refusals before this one are settled: terms follow one another
        index += 1
    if start is None:
        _log.error("the audit log misses the announcement of a key", terms=missed)
    return start


def is_agreed_beyond(
    log: Segments, size: int, agreed: Sequence[Position], checkpoint: Checkpoint | None
) -> bool:
    """Whether the mark or the checkpoint confirms more than the first `size` entries, as they stand here.

    Such entries are never replaced, even if they should have been others. Blocking. Raises OSError.
    """
    is_signed = (
        checkpoint is not None
        and size < checkpoint.size <= log.size
        and log.hashes.is_whole
        and log.hashes.root(checkpoint.size) == checkpoint.root
    )
    return is_signed or any(size < position.size <= log.size and _has(log, position) for position in agreed)


def read_checkpoint(note: bytes, keys: OpenKeys) -> Checkpoint | None:
    """The checkpoint that stands in etcd; None when it is not ours."""
    try:
        return verify(note.decode("utf-8", "replace"), keys.signing.public, keys.origin)
    except BadCheckpoint as error:
        _log.error("the checkpoint in etcd is not ours", why=str(error))
        return None


def doubt_of(log: Segments, known: Sequence[Position], checkpoint: Checkpoint | None) -> str:
    """Why the log is not to be trusted as it stands; "" if it is. Blocking. Raises OSError."""
    if log.damage:
        return log.damage.reason
    for position in known:
        if log.first <= position.size <= log.size and not _has(log, position):
            return f"entry {position.size - 1} is not the one this chain had there"
    is_here = checkpoint is not None and log.first <= checkpoint.size <= log.size and log.hashes.is_whole
    if checkpoint and is_here and log.hashes.root(checkpoint.size) != checkpoint.root:
        return f"the first {checkpoint.size} entries are not those of the signed checkpoint"
    return ""


def _fault_of(log: Segments, keys: OpenKeys, reported: Sequence[Position]) -> str:
    """What is wrong with this log's own marker, lines or length; "" if nothing. Raises MissingKey."""
    if log.first and not log.stand_in and not log.marker.is_ours(keys.chain):
        return "its marker is not this chain's"
    return log.damage.reason if log.damage else _shorter(log, reported)


def _shorter(log: Segments, reported: Sequence[Position]) -> str:
    """Why the log is too short, or "": a position beyond its end is compared with nothing."""
    if log.size and any(log.size < position.size for position in reported):
        return "it has fewer entries than this replica had reported"
    return ""


def _has(log: Segments, position: Position) -> bool:
    try:
        return log.hmac_at(position.size) == position.hmac
    except Broken:
        return False
