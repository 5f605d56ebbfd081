"""How far a chain has come, as replicas report it and as the mark says it."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError

from strongbox.audit_log.chain import GENESIS
from strongbox.storage.v1 import audit_records_pb2 as storage


class Position(NamedTuple):
    """The chain's length and newest HMAC once everything up to an etcd revision is chained."""

    size: int
    hmac: str
    revision: int

    @classmethod
    def parse(cls, value: bytes) -> Position:
        """From a ChainPosition record."""
        record = storage.ChainPosition.FromString(value)
        return cls(record.size, record.hmac, record.revision)

    def pack(self, first: int = 0) -> bytes:
        """As a ChainPosition record; `first`: the first entry that is not archived."""
        return storage.ChainPosition(
            size=self.size, hmac=self.hmac, revision=self.revision, first=first
        ).SerializeToString()


BEGINNING = Position(0, GENESIS, 0)


def first_of(report: bytes) -> int:
    """The first entry that the replica of this report has not archived; 0 when nobody can read it.

    So the audit duty counts it as well: of a replica that holds nothing, so nobody takes it for archived.
    """
    try:
        return storage.ChainPosition.FromString(report).first
    except DecodeError:
        return 0
