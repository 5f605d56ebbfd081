"""Lines, pages and proofs on the wire."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from services.audit.following.position import Position
from services.audit.log.query import Page
from services.audit.proofs.prove import Growth, Inclusion
from strongbox.audit.v1 import audit_service_pb2 as pb
from strongbox.audit_log.chain import parse_line

_SAME = ("index", "request_id", "accessor", "op", "path", "version", "outcome", "reason", "client",
"producer", "producer_seq", "prev_hmac", "hmac")  # fmt: skip


def to_entry(line: bytes) -> pb.Entry:
    """The entry a line holds."""
    entry = parse_line(line)
    stamp = Timestamp()
    stamp.FromJsonString(entry.ts)
    return pb.Entry(ts=stamp, **{name: getattr(entry, name) for name in _SAME})


def to_entries(page: Page, position: Position, first: int = 0) -> pb.ListEntriesResponse:
    """A page, the head of the chain it was taken from, and the first entry that is not archived."""
    return pb.ListEntriesResponse(
        entries=map(to_entry, page.lines),
        head=pb.Head(index=position.size - 1, hmac=position.hmac),
        next_index=page.next_index,
        first_index=first,
    )


def to_proof(note: str, signed: Growth, entry: Inclusion | None, older: Growth | None) -> pb.GetProofResponse:
    """What was proved; `signed`: the way from the size asked for to the checkpoint `note`."""
    answer = pb.GetProofResponse(
        size=signed.size, root_hash=signed.root, checkpoint=note, checkpoint_path=signed.path
    )
    if entry is not None:
        answer.index, answer.leaf_hash = entry.index, entry.leaf
        answer.inclusion_path.extend(entry.path)
    if older is not None:
        answer.from_size, answer.from_root_hash = older.size, older.root
        answer.consistency_path.extend(older.path)
    return answer
