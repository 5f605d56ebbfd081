"""How one question is put to etcd: attempts with deadlines, on members that answer.

* An attempt has its own short deadline (0.4 s): a proposal forwarded to a leader that just died is answered
  only after 5 s + 2 × election timeout. It is longer when every member is late (`patience`).
* `Unavailable` (surely not applied) is tried again on the next member until the deadline, whatever the call.
* `OutcomeUnknown` is tried again only for calls marked idempotent; for reads it becomes `Unavailable`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2 as pb

from strongbox.store.etcd.endpoints import METADATA, Endpoint, Options, Ring
from strongbox.store.etcd.errors import (
    EtcdError,
    OutcomeUnknown,
    OutOfSpace,
    PermissionDenied,
    Refused,
    TooLarge,
    Unavailable,
    classify,
)
from strongbox.store.etcd.patience import Patience
from strongbox.tls_failures import told, why_refused

Answer = TypeVar("Answer")
_FAIR_ATTEMPT = 0.1  # seconds: a shorter wait says nothing about the member
_PAUSE = 0.02  # seconds between rounds over all members


@dataclass(frozen=True, slots=True)
class Method(Generic[Answer]):
    """One unary RPC of etcd: its path, its answer's type, whether it only reads."""

    path: str
    answer: type[Answer]
    reads: bool = False


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeResponse, reads=True)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionResponse)
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse)
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusResponse, reads=True)
DEFRAGMENT = Method("/etcdserverpb.Maintenance/Defragment", pb.DefragmentResponse)
ALARM = Method("/etcdserverpb.Maintenance/Alarm", pb.AlarmResponse)
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
WATCH = "/etcdserverpb.Watch/Watch"


class Caller:
    """Puts questions to the ring's members."""

    def __init__(self, ring: Ring, options: Options) -> None:
        self.ring = ring
        self.options = options
        self.patience = Patience(options.attempt, len(ring.members))

    async def ask(
        self,
        method: Method[Answer],
        request: Any,
        *,
        deadline: float | None,
        idempotent: bool,
        attempt: float | None = None,
    ) -> Answer:
        """The answer of the first member that gives one before `deadline` (monotonic seconds)."""
        end = self._end(deadline)
        unknown, is_late, why = False, False, ""
        late = self.patience.attempts(reads=method.reads)
        seconds = attempt or next(late)
        for number in itertools.count():
            if number and number % len(self.ring.members) == 0:
                await breathe()
            remaining = end - time.monotonic()
            if remaining <= 0:
                break
            started = time.monotonic()
            try:
                answer = await self.ask_member(self.ring.pick(), method, request, min(remaining, seconds))
            except OutOfSpace as full:
                full.earlier = unknown
                raise
            except OutcomeUnknown:
                if not (idempotent or method.reads):
                    raise
                unknown = not method.reads
                is_late = True
                seconds = attempt or next(late)
            except Unavailable as error:
                is_late, why = False, why_refused(str(error))
            except (PermissionDenied, Refused, TooLarge) as refusal:
                if unknown and method is TXN:  # an earlier attempt may have been carried out all the same
                    raise OutcomeUnknown(str(refusal)) from None
                raise
            else:
                if attempt is None:
                    self.patience.answered(time.monotonic() - started, reads=method.reads)
                return answer
        if is_late and attempt is None:
            self.patience.unanswered(reads=method.reads)
        kind = OutcomeUnknown if unknown else Unavailable
        raise kind(f"etcd did not answer {method.path} in time" + (f": {why}" if why else ""))

    async def ask_member(
        self, endpoint: Endpoint, method: Method[Answer], request: Any, timeout: float
    ) -> Answer:
        """One attempt at one member; the ring leaves a member that does not serve."""
        started = time.monotonic()
        try:
            answer: Answer = await endpoint.unary(method.path, method.answer)(
                request, timeout=timeout, metadata=METADATA
            )
        except (grpc.aio.AioRpcError, grpc.aio.UsageError) as failure:
            raise self.judged(endpoint, failure, started, timeout) from None
        endpoint.worked(started)
        return answer

    def judged(self, endpoint: Endpoint, failure: Exception, started: float, timeout: float) -> EtcdError:
        """The failure as an EtcdError; the ring leaves the member if it is at fault."""
        if not isinstance(failure, grpc.aio.AioRpcError):
            return Unavailable(f"the channel is closed: {failure}")
        told.tell(endpoint.address, failure.details())
        error = classify(failure.code(), failure.details() or "")
        timed_out = failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if isinstance(error, OutOfSpace) or not isinstance(error, (OutcomeUnknown, Unavailable)):
            endpoint.worked(started)
        elif not timed_out or timeout >= _FAIR_ATTEMPT:
            self.ring.leave(endpoint, started)
        return error

    def _end(self, deadline: float | None) -> float:
        return time.monotonic() + self.options.total if deadline is None else deadline


async def breathe() -> None:
    """A short pause, so that refusals do not become a busy loop."""
    await asyncio.sleep(_PAUSE)
