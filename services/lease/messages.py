"""Between the wire and the domain: a lease as it is told."""

from __future__ import annotations

from typing import TypedDict

from google.protobuf.timestamp_pb2 import Timestamp

from services.lease.leases import Told


class Info(TypedDict):
    """The fields that Lease and GetLeaseResponse share; a read lease has no attempts and no error."""

    id: str
    state: str
    path: str
    accessor: str
    issued_at: Timestamp
    expires_at: Timestamp


def info_to_proto(told: Told) -> Info:
    """A lease's fields."""
    record = told.record
    return Info(
        id=record.id,
        state=told.state,
        path=record.path,
        accessor=record.accessor,
        issued_at=_moment(record.issued_ms),
        expires_at=_moment(record.expires_ms),
    )


def _moment(at_ms: int) -> Timestamp:
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)
