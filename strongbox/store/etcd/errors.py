"""What etcd can answer, as exceptions that say what may have happened.

    EtcdError                    .maybe_applied: may the transaction have been, or still be, applied?
    ├── Unavailable       no     never sent, or refused before it was proposed; asking again is always safe
    ├── OutcomeUnknown    yes    deadline, reset or lost answer after sending: look before doing it again
    │   └── OutOfSpace    yes    NOSPACE: the write that crosses the quota can be applied and get this too
    ├── Compacted         no     the revision asked for is gone: list again, then watch from there
    ├── TooLarge          no     more bytes or operations than etcd takes in one request
    ├── PermissionDenied  no     the certificate's user may not touch these keys
    ├── LeaseGone         no     the etcd lease named is unknown (expired or revoked)
    └── Refused           no     etcd calls the request malformed: a defect of ours

These are facts about the store and never reach a client: the pipeline turns them into strongbox.errors.
An attempt that timed out can be applied seconds later (a proposal waits in a queue or a buffer), so
`OutcomeUnknown` also means "not yet".
"""

from __future__ import annotations

import grpc


class EtcdError(Exception):
    """A call to etcd that did not succeed."""

    maybe_applied = False


class Unavailable(EtcdError):
    """No member took the request; it was surely not applied."""


class OutcomeUnknown(EtcdError):
    """The request was sent and its answer is missing; it may have been applied or may still be."""

    maybe_applied = True


class OutOfSpace(OutcomeUnknown):
    """etcd's space quota is used up. `earlier`: an attempt before this one was not answered at all."""

    earlier = False


class Compacted(EtcdError):
    """The revision asked for was compacted; `revision` is the oldest one left (0 when etcd did not say)."""

    def __init__(self, message: str, revision: int = 0) -> None:
        super().__init__(message)
        self.revision = revision


class TooLarge(EtcdError):
    """The request has more bytes or operations than etcd accepts."""


class PermissionDenied(EtcdError):
    """etcd's role for this certificate does not cover the keys."""


class LeaseGone(EtcdError):
    """The etcd lease does not exist (any more)."""


class Refused(EtcdError):
    """etcd refused the request as invalid."""


_NEVER_SENT = (
    "failed to connect to all addresses",
    "DNS resolution failed",
    "etcdserver: no leader",  # the hasleader interceptor answers before the handler runs
    "etcdserver: too many requests",  # refused before the proposal
    "etcdserver: not capable",
    "revision of auth store is old",  # users or roles changed meanwhile; judged before it is applied
)
_BY_TEXT: tuple[tuple[str, type[EtcdError]], ...] = (
    ("database space exceeded", OutOfSpace),
    ("required revision has been compacted", Compacted),
    ("request is too large", TooLarge),
    ("too many operations", TooLarge),
    ("SERVER: Received message larger than max", TooLarge),
    ("grpc: received message larger than max", TooLarge),
    ("Sent message larger than max", TooLarge),
    ("trying to send message larger than max", TooLarge),
    ("requested lease not found", LeaseGone),
    *((text, Unavailable) for text in _NEVER_SENT),
)
_BY_CODE: dict[grpc.StatusCode, type[EtcdError]] = {
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.OUT_OF_RANGE: Refused,
    grpc.StatusCode.NOT_FOUND: Refused,
    grpc.StatusCode.UNIMPLEMENTED: Refused,
}


def classify(code: grpc.StatusCode, details: str) -> EtcdError:
    """The exception for an answer; whatever is not surely unapplied is `OutcomeUnknown`.

    The text decides before the code, because etcd and gRPC use UNAVAILABLE and RESOURCE_EXHAUSTED both for
    requests that never left and for requests that were proposed.
    """
    message = f"{code.name}: {details}"
    for text, kind in _BY_TEXT:
        if text in details:
            return kind(message)
    return _BY_CODE.get(code, OutcomeUnknown)(message)
