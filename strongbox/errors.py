"""The one error tree; every refusal a client can see is a class here.

    StrongBoxError
    ├── InvalidInput            400 INVALID_ARGUMENT
    │   ├── InvalidPath · TooLarge · WrongShare · RepeatedShare · AlreadyInitialized
    │   ├── IdempotencyMismatch
    │   └── LiveLeases
    ├── Unauthenticated         401 UNAUTHENTICATED
    ├── PermissionDenied        403 PERMISSION_DENIED
    ├── NotFound                404 NOT_FOUND
    │   ├── VersionDeleted · VersionDestroyed
    ├── VersionMismatch         409 ABORTED
    ├── RateLimited             429 RESOURCE_EXHAUSTED
    │   └── QuotaExceeded
    ├── Unavailable             503 UNAVAILABLE
    │   ├── Sealed · NotInitialized · NoQuorum · DependencyDown · Overloaded · UnknownOutcome
    ├── DeadlineExceeded        504 DEADLINE_EXCEEDED
    └── Internal                500 INTERNAL

A message never holds a value, token, share or key; `metadata` holds short facts for machines.
`kind` is translated to a gRPC code at one border (strongbox/rpc) and back at the other (the client).
"""

from __future__ import annotations


class StrongBoxError(Exception):
    """A refusal with a stable `reason` (SCREAMING_SNAKE) and a `kind` that names its gRPC code."""

    reason = "INTERNAL"
    kind = "INTERNAL"
    text = "something went wrong inside; the request id finds it in the logs"

    def __init__(self, message: str = "", **metadata: str) -> None:
        super().__init__(message or self.text)
        self.metadata = metadata

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self.args[0])


class InvalidInput(StrongBoxError):
    reason, kind, text = "INVALID_ARGUMENT", "INVALID_ARGUMENT", "the request is not valid"


class InvalidPath(InvalidInput):
    reason, text = "INVALID_PATH", "the path is not in canonical form"


class TooLarge(InvalidInput):
    reason, text = "TOO_LARGE", "the request is larger than the limit"


class WrongShare(InvalidInput):
    reason, text = "WRONG_SHARE", "this is not a key share of this cluster"


class RepeatedShare(InvalidInput):
    reason, text = "REPEATED_SHARE", "this key share was given already; it counts once"


class AlreadyInitialized(InvalidInput):
    reason, text = "ALREADY_INITIALIZED", "the cluster is initialized already"


class IdempotencyMismatch(InvalidInput):
    reason, text = "IDEMPOTENCY_MISMATCH", "this idempotency key was used with another request"


class LiveLeases(InvalidInput):
    reason, text = "LIVE_LEASES", "leases that live need it"


class Unauthenticated(StrongBoxError):
    reason, kind = "UNAUTHENTICATED", "UNAUTHENTICATED"
    text = "a valid token is needed"


class PermissionDenied(StrongBoxError):
    reason, kind = "PERMISSION_DENIED", "PERMISSION_DENIED"
    text = "the token's policies do not allow this"


class NotFound(StrongBoxError):
    reason, kind, text = "NOT_FOUND", "NOT_FOUND", "there is nothing of that name"


class VersionDeleted(NotFound):
    reason, text = "DELETED", "this version is deleted; it can be undeleted"


class VersionDestroyed(NotFound):
    reason, text = "DESTROYED", "this version is destroyed for good"


class VersionMismatch(StrongBoxError):
    reason, kind = "VERSION_MISMATCH", "ABORTED"
    text = "the current version is not the one named by cas"


class RateLimited(StrongBoxError):
    reason, kind, text = "RATE_LIMITED", "RESOURCE_EXHAUSTED", "too many requests"


class QuotaExceeded(RateLimited):
    reason, text = "QUOTA_EXCEEDED", "there are as many live leases as are allowed"


class Unavailable(StrongBoxError):
    reason, kind, text = "UNAVAILABLE", "UNAVAILABLE", "the service cannot answer now"


class Sealed(Unavailable):
    reason, text = "SEALED", "the cluster is sealed"


class NotInitialized(Unavailable):
    reason, text = "NOT_INITIALIZED", "the cluster is not initialized"


class NoQuorum(Unavailable):
    reason, text = "NO_QUORUM", "etcd has no quorum on this side"


class DependencyDown(Unavailable):
    reason, text = "DEPENDENCY_DOWN", "a service this one needs does not answer"


class Overloaded(Unavailable):
    reason, text = "OVERLOADED", "too much work is waiting"


class UnknownOutcome(Unavailable):
    reason, text = "UNKNOWN_OUTCOME", "it is not known whether the request took effect"


class DeadlineExceeded(StrongBoxError):
    reason, kind, text = "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "the deadline passed"


class Internal(StrongBoxError):
    """A defect of ours; the cause is in the log under the request id, never in the answer."""
