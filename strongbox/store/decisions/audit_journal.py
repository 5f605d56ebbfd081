"""All that the pipeline knows of the audit trail.

A batch moves the producer's cursor, whose value is `<batch>:<attempt nonce>`; each part of the batch that
takes effect leaves one packed record at `record_key(batch, part)`. So the cursor says whether a batch
landed, and the records say which of its parts did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

DRAFT = 256  # bytes of a draft beside its path


@dataclass(slots=True)
class Draft:
    """One operation's audit record under way.

    `accessor` is empty until the guard has authenticated the caller; `path` is the policy path; the
    pipeline fills in `ts_ms`, and `outcome` (`ok` or `refused`) and `reason` unless the decision has. A
    decision that sets its view's draft to None leaves no record; one that does several things may leave
    several (`View.record`), each with its own outcome.
    """

    op: str
    path: str
    request_id: str
    client: str
    accessor: str = ""
    version: int = 0
    outcome: str = ""
    reason: str = ""
    ts_ms: int = 0


def size_of(drafts: Iterable[Draft]) -> int:
    """Bytes that their record takes, rounded up, before it is packed: only a path can be long."""
    return sum(len(draft.path) + DRAFT for draft in drafts)


class Journal(Protocol):
    """Where a producer's cursor and records stand in etcd, and how drafts are packed."""

    @property
    def cursor_key(self) -> bytes:
        """The key that every batch of this producer moves."""

    def begin_anew(self) -> None:
        """The cursor was removed, because this producer was believed gone: go on as another one."""

    def batch_prefix(self, batch: int) -> bytes:
        """The prefix of all records of a batch."""

    def record_key(self, batch: int, part: int) -> bytes:
        """The key of the record of one part."""

    def pack(self, drafts: Sequence[Draft]) -> bytes:
        """One record for these operations, in order."""

    def require_room(self) -> None:
        """Raise `Overloaded` when no further audited request may be taken."""

    def committed(self, revision: int, records: int, size: int) -> None:
        """A batch left so many records, of so many bytes together, at this etcd revision."""
