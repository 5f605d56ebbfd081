"""The tamper-evident log: reading it, following it, and verifying what the service says of it.

A checkpoint can be trusted as far as its public key: get the key once by a way you trust (`public_key`), keep
it, and give it to `checkpoint` and `prove`, which then verify the signature, and that the log only grew since
a checkpoint you kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from strongbox.audit.v1 import audit_service_pb2 as pb
from strongbox.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strongbox.audit_log.checkpoint import BadCheckpoint, verify
from strongbox.audit_log.checkpoint import Checkpoint as Told
from strongbox.audit_log.merkle import is_consistent, is_included
from strongbox.client.transport import Wire
from strongbox.crypto.ed25519 import from_pem
from strongbox.errors import Internal, InvalidInput, NotInitialized, Sealed, StrongBoxError, Unavailable

PAGE = 1000  # entries; the most that the service gives at once
_REOPEN = 0.5  # seconds between two tries to go on following


class LogForged(Internal):
    """What the service says of the log is not what was signed."""


class Checkpoint(NamedTuple):
    """A signed note, and what it says: `size` entries under this Merkle root (32 bytes)."""

    note: str
    size: int
    root: bytes


class Audit:
    """What happened, in order."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = AuditServiceStub(wire.channel)

    def page(
        self, from_index: int = 0, limit: int = 0, *, path: str = "", accessor: str = "", op: str = "",
        path_prefix: str = "", outcome: str = "", since: str = "", until: str = "",
        newest_first: bool = False, before_index: int | None = None,
    ) -> pb.ListEntriesResponse:  # fmt: skip
        """Entries from an index on (with `newest_first` below `before_index`), and the head of the chain.

        100 unless `limit` says otherwise; where to go on is in `next_index`, if anything is left.
        """
        request = pb.ListEntriesRequest(
            from_index=from_index, limit=limit, path=path, accessor=accessor, op=op, path_prefix=path_prefix,
            outcome=outcome, since=since, until=until, newest_first=newest_first, before_index=before_index,
        )  # fmt: skip
        return self._wire.call(self._stub.ListEntries, request)

    def entries(
        self, from_index: int = 0, *, path: str = "", accessor: str = "", op: str = "",
        path_prefix: str = "", outcome: str = "", since: str = "", until: str = "",
    ) -> Iterator[pb.Entry]:  # fmt: skip
        """All entries that match, up to the newest, page by page as they are asked for."""
        while True:
            page = self.page(
                from_index, PAGE, path=path, accessor=accessor, op=op, path_prefix=path_prefix,
                outcome=outcome, since=since, until=until,
            )  # fmt: skip
            yield from page.entries
            if not page.HasField("next_index"):
                return
            from_index = page.next_index

    def follow(
        self, from_index: int | None = None, *, path: str = "", accessor: str = "", op: str = "",
        path_prefix: str = "", outcome: str = "",
    ) -> Iterator[pb.Entry]:  # fmt: skip
        """Entries as they come, for ever, over broken connections; none is left out or repeated.

        Ends with an error when the token may not follow any more, or the cluster is sealed.
        """
        while True:
            request = pb.FollowEntriesRequest(
                from_index=from_index, path=path, accessor=accessor, op=op, path_prefix=path_prefix,
                outcome=outcome,
            )  # fmt: skip
            try:
                for answer in self._wire.stream(self._stub.FollowEntries, request):
                    from_index = answer.entry.index + 1
                    yield answer.entry
            except StrongBoxError as error:
                # Before the first entry there is no index to go on from.
                if from_index is None or not _is_broken(error):
                    raise
            time.sleep(_REOPEN)

    def archive(self, before_index: int | None = None) -> pb.ArchiveEntriesResponse:
        """Have whole segments below an index (None: all there are) archived; how far each replica is."""
        return self._wire.call(self._stub.ArchiveEntries, pb.ArchiveEntriesRequest(before_index=before_index))

    def public_key(self) -> str:
        """What checkpoints are verified with, as PEM."""
        return self._wire.call(self._stub.GetPublicKey, pb.GetPublicKeyRequest()).public_key

    def checkpoint(self, public_key: str = "", since: str = "") -> Checkpoint:
        """The newest checkpoint, which holds all that was acknowledged before the call.

        `public_key`: PEM; the signature is verified. `since`: a note kept from before; that the log only grew
        since is verified too (needs the key). Raises LogForged, InvalidInput.
        """
        answer = self._wire.call(self._stub.GetCheckpoint, pb.GetCheckpointRequest())
        if not public_key:
            return Checkpoint(answer.checkpoint, answer.size, answer.root_hash)
        told = _verified(answer.checkpoint, public_key)
        if since:
            old = _verified(since, public_key)
            if old.origin != told.origin or old.size > told.size:
                raise LogForged("the log is shorter than, or another than, the one of the checkpoint kept")
            self._require_growth(old, told)
        return Checkpoint(answer.checkpoint, told.size, told.root)

    def prove(self, index: int, public_key: str) -> Checkpoint:
        """Verify that entry `index` is in the log; the checkpoint that covers it. Raises LogForged."""
        answer = self._wire.call(self._stub.GetProof, pb.GetProofRequest(index=index))
        told = _verified(answer.checkpoint, public_key)
        path, size, root = list(answer.inclusion_path), answer.size, answer.root_hash
        if answer.index != index or not is_included(index, size, answer.leaf_hash, path, root):
            raise LogForged(f"entry {index} is not proved")
        if not is_consistent(size, told.size, root, told.root, list(answer.checkpoint_path)):
            raise LogForged("the proof does not lead to the signed checkpoint")
        return Checkpoint(answer.checkpoint, told.size, told.root)

    def rotate_key(self) -> int:
        """Begin a new HMAC key for what is recorded from now on; its term."""
        return self._wire.call(self._stub.RotateAuditKey, pb.RotateAuditKeyRequest()).term

    def export_key(self) -> str:
        """The chain's HMAC keys, as the text of a file for `strongbox-verify --key-file`. Itself audited."""
        return self._wire.call(self._stub.ExportKey, pb.ExportKeyRequest(), slow=True).key

    def _require_growth(self, old: Told, told: Told) -> None:
        if not old.size:
            return
        request = pb.GetProofRequest(from_size=old.size, size=told.size)
        answer = self._wire.call(self._stub.GetProof, request)
        if not is_consistent(old.size, told.size, old.root, told.root, list(answer.consistency_path)):
            raise LogForged("the log is not the one that was signed before: it was written anew")


def _verified(note: str, public_key: str) -> Told:
    try:
        public = from_pem(public_key)
    except ValueError:
        raise InvalidInput("this is not an Ed25519 public key in PEM") from None
    try:
        return verify(note, public)
    except BadCheckpoint as fault:
        raise LogForged(str(fault)) from None


def _is_broken(error: StrongBoxError) -> bool:
    """Whether a stream ended because a connection or a replica was lost, and not by a refusal."""
    if isinstance(error, Unavailable):
        return not isinstance(error, Sealed | NotInitialized)
    return "request_id" not in error.metadata  # no service said this
