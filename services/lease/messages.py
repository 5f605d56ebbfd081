"""Between the wire and the domain: a lease as callers see it."""

from __future__ import annotations

from typing import TypedDict

from google.protobuf.timestamp_pb2 import Timestamp

from services.lease import credential_lease
from services.lease.leases.lease_decisions import Told
from services.lease.postgres.ending.inspection import Owned
from strongbox.lease.v1 import lease_service_pb2 as pb


class Info(TypedDict, total=False):
    """The fields that the messages of a lease share; a read lease has no attempts and no error."""

    id: str
    state: str
    path: str
    accessor: str
    issued_at: Timestamp
    expires_at: Timestamp
    attempts: int
    last_error: str
    next_attempt_at: Timestamp


def info_to_proto(told: Told) -> Info:
    """A lease's fields."""
    record = told.record
    info = Info(
        id=record.id,
        state=told.state,
        path=record.path,
        accessor=record.accessor,
        issued_at=moment(record.issued_ms),
        expires_at=moment(record.expires_ms),
    )
    if isinstance(record, credential_lease.Record):
        info["attempts"], info["last_error"] = record.attempts, record.last_error
        if (
            record.state in (credential_lease.PENDING, credential_lease.ABANDONED)
            and record.next_ms != credential_lease.AT_ONCE
        ):
            info["next_attempt_at"] = moment(record.next_ms)
    return info


def owned_to_proto(one: Owned) -> pb.OwnedObject:
    """One object that a connection's user owns."""
    return pb.OwnedObject(
        database=one.database,
        type=one.kind,
        identity=one.identity,
        runs_as_owner=one.runs_as_owner,
        hand_over=one.hand_over,
    )


def moment(at_ms: int) -> Timestamp:
    """A moment in milliseconds since the epoch."""
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)
