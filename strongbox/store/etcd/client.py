"""etcd for asyncio: linearizable reads, transactions, etcd leases and upkeep.

Rules:
* Reads are always linearizable; there is no way to ask for a stale one.
* A transaction is never repeated blindly: after `OutcomeUnknown` the caller looks first. It is safe to
  repeat only when it compares a key that it moves itself (then at most one attempt, however late, is
  applied), and even then the repetition's failed compare may mean that the first attempt succeeded.
  `idempotent=True` says that the caller knows this.
* `deadline` is a reading of `time.monotonic()`; None means `Options.total` from now.
* Errors are those of strongbox.store.etcd.errors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2 as pb
from google.protobuf.unknown_fields import UnknownFieldSet

from strongbox.store.etcd import attempts
from strongbox.store.etcd.attempts import Caller
from strongbox.store.etcd.endpoints import METADATA, Options, Ring, Tls
from strongbox.store.etcd.errors import EtcdError, LeaseGone, OutcomeUnknown, Refused, Unavailable
from strongbox.store.etcd.txn import TxnRequest, TxnResponse

__all__ = ["KV", "Etcd", "MemberStatus", "Options", "RangeReply", "Tls", "rows_of"]
_LATE = 0.1  # seconds after which a stream that should have ended by itself is given up
_DB_SIZE_IN_USE = 9  # field number in StatusResponse; the stubs are older than the field
_UPKEEP_ATTEMPT = 30.0  # seconds: physical compaction and defragmentation work through the whole file


class KV(NamedTuple):
    """One key as etcd stores it."""

    key: bytes
    value: bytes
    mod_revision: int
    create_revision: int
    lease: int = 0


class RangeReply(NamedTuple):
    """The rows read, the store's revision at that moment, and whether `limit` cut the rest off."""

    rows: tuple[KV, ...]
    revision: int
    more: bool


class MemberStatus(NamedTuple):
    """One member: version, file size in bytes, the ids of its leader and of itself, newest revision.

    `in_use` are the bytes of the file that are not free pages.
    """

    version: str
    db_size: int
    leader: int
    member: int
    revision: int
    in_use: int = 0


def rows_of(reply: Any) -> tuple[KV, ...]:
    """The rows of a range response (also one inside a transaction's answer)."""
    return tuple(
        KV(row.key, row.value, row.mod_revision, row.create_revision, row.lease) for row in reply.kvs
    )


def _varint(reply: Any, number: int) -> int:
    """A field that the stubs do not know; 0: it is not there."""
    unknown = UnknownFieldSet(reply)
    found = (unknown[index] for index in range(len(unknown)))
    return next((int(field.data) for field in found if field.field_number == number), 0)


class Etcd:
    """A client of one etcd cluster. Make and close it inside the event loop that uses it."""

    def __init__(
        self, endpoints: Sequence[str], tls: Tls | None = None, options: Options | None = None
    ) -> None:
        self.options = options or Options()
        self.ring = Ring(endpoints, tls, self.options)
        self.caller = Caller(self.ring, self.options)

    def renew(self, tls: Tls) -> None:
        """The certificate was renewed: calls from now on bear the new one."""
        self.ring.renew(tls)

    async def close(self) -> None:
        """Close the channels; calls in flight fail."""
        await self.ring.close()

    async def get(self, key: bytes, *, deadline: float | None = None) -> KV | None:
        """The key's newest value, or None when it is absent."""
        rows = (await self.range(key, deadline=deadline)).rows
        return rows[0] if rows else None

    async def range(
        self,
        key: bytes,
        end: bytes = b"",
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        *,
        deadline: float | None = None,
    ) -> RangeReply:
        """The keys in [key, end) in order (`end` empty: `key` alone), as of `revision` (0: now).

        Raises Compacted when `revision` is gone, Unavailable when no member answered in time.
        """
        request = pb.RangeRequest(key=key, range_end=end, limit=limit, revision=revision, keys_only=keys_only)
        reply = await self.caller.ask(attempts.RANGE, request, deadline=deadline, idempotent=True)
        return RangeReply(rows_of(reply), reply.header.revision, reply.more)

    async def transact(
        self, request: TxnRequest, *, deadline: float | None = None, idempotent: bool = False
    ) -> TxnResponse:
        """Commit `request` and return etcd's answer (`succeeded` says which branch ran).

        Raises OutcomeUnknown when it may have been applied; when not `idempotent`, after the first such
        attempt.
        """
        return await self.caller.ask(attempts.TXN, request, deadline=deadline, idempotent=idempotent)

    async def lease_grant(self, lease: int, ttl: int, *, deadline: float | None = None) -> int:
        """Make the etcd lease `lease` (an id of the caller's, random 63 bits) and return its TTL in seconds.

        The caller's own id makes a repeated attempt harmless: an id that exists was made by an earlier
        attempt.
        """
        request = pb.LeaseGrantRequest(ID=lease, TTL=ttl)
        try:
            reply = await self.caller.ask(attempts.GRANT, request, deadline=deadline, idempotent=True)
        except Refused as error:
            if "lease already exists" not in str(error):
                raise
            return ttl
        return int(reply.TTL)

    async def lease_revoke(self, lease: int, *, deadline: float | None = None) -> None:
        """Revoke the etcd lease and delete its keys; one that is gone already is a success."""
        try:
            request = pb.LeaseRevokeRequest(ID=lease)
            await self.caller.ask(attempts.REVOKE, request, deadline=deadline, idempotent=True)
        except LeaseGone:
            return

    async def keepalive_once(self, lease: int, *, deadline: float | None = None) -> int:
        """Renew the etcd lease and return its TTL in seconds; 0 when it is gone.

        etcd before 3.5.23 can report success for a revoked lease, so the keys' own presence decides who
        holds them.
        """
        end = time.monotonic() + self.options.total if deadline is None else deadline
        while (remaining := end - time.monotonic()) > 0:
            try:
                return await self._renew(lease, min(remaining, self.options.attempt))
            except (Unavailable, OutcomeUnknown):
                await attempts.breathe()
        raise Unavailable("etcd did not renew the lease in time")

    async def status(self, endpoint: str | None = None, *, deadline: float | None = None) -> MemberStatus:
        """What the member at `endpoint` (None: the one in use) says of itself."""
        request, timeout = pb.StatusRequest(), self.options.attempt
        if endpoint is None:
            reply = await self.caller.ask(attempts.STATUS, request, deadline=deadline, idempotent=True)
        else:
            reply = await self.caller.ask_member(self.ring.named(endpoint), attempts.STATUS, request, timeout)
        return MemberStatus(
            reply.version,
            reply.dbSize,
            reply.leader,
            reply.header.member_id,
            reply.header.revision,
            _varint(reply, _DB_SIZE_IN_USE),
        )

    async def probe(self, endpoint: str, *, timeout: float) -> None:
        """Read through the member at `endpoint`: answered only by one that serves. Raises EtcdError.

        OutcomeUnknown: it hangs; Unavailable: it is not there, or has no leader.
        """
        request = pb.RangeRequest(key=b"\0", keys_only=True)
        await self.caller.ask_member(self.ring.named(endpoint), attempts.RANGE, request, timeout)

    async def compact(self, revision: int, *, physical: bool = True, deadline: float | None = None) -> None:
        """Forget history before `revision`; with `physical` return when the pages are free.

        A revision that was compacted before is a success.
        """
        end = time.monotonic() + _UPKEEP_ATTEMPT if deadline is None else deadline
        request = pb.CompactionRequest(revision=revision, physical=physical)
        try:
            await self.caller.ask(
                attempts.COMPACT, request, deadline=end, idempotent=True, attempt=_UPKEEP_ATTEMPT
            )
        except EtcdError as error:
            if "has been compacted" not in str(error):
                raise

    async def defragment(self, endpoint: str, *, timeout: float = _UPKEEP_ATTEMPT) -> None:
        """Give the free pages of one member back to its disk.

        It serves nothing meanwhile, so one at a time.
        """
        member = self.ring.named(endpoint)
        await self.caller.ask_member(member, attempts.DEFRAGMENT, pb.DefragmentRequest(), timeout)

    async def is_full(self, *, deadline: float | None = None) -> bool:
        """Whether a NOSPACE alarm stands: then etcd takes no put."""
        listed = await self._alarm(pb.AlarmRequest(action=pb.AlarmRequest.GET), deadline)
        return any(alarm.alarm == pb.NOSPACE for alarm in listed.alarms)

    async def disarm(self, *, deadline: float | None = None) -> int:
        """Clear NOSPACE alarms (after compaction and defragmentation) and return how many.

        CORRUPT is left standing.
        """
        listed = await self._alarm(pb.AlarmRequest(action=pb.AlarmRequest.GET), deadline)
        full = [alarm for alarm in listed.alarms if alarm.alarm == pb.NOSPACE]
        for alarm in full:
            request = pb.AlarmRequest(
                action=pb.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm
            )
            await self._alarm(request, deadline)
        return len(full)

    async def _alarm(self, request: pb.AlarmRequest, deadline: float | None) -> pb.AlarmResponse:
        return await self.caller.ask(attempts.ALARM, request, deadline=deadline, idempotent=True)

    async def _renew(self, lease: int, timeout: float) -> int:
        endpoint, started = self.ring.pick(), time.monotonic()
        open_stream = endpoint.stream(attempts.KEEP_ALIVE, pb.LeaseKeepAliveResponse)
        stream = open_stream(timeout=timeout, metadata=METADATA)
        try:
            # A deadline of our own: a write to a call that ended before its metadata were sent never returns.
            async with asyncio.timeout(timeout + _LATE):
                await stream.write(pb.LeaseKeepAliveRequest(ID=lease))
                reply = await stream.read()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError) as failure:
            raise self.caller.judged(endpoint, failure, started, timeout) from None
        except (TimeoutError, asyncio.InvalidStateError):
            self.ring.leave(endpoint, started)
            raise OutcomeUnknown("the lease stream hangs") from None
        finally:
            stream.cancel()
        if not isinstance(reply, pb.LeaseKeepAliveResponse):  # grpc.aio.EOF
            self.ring.leave(endpoint, started)
            raise OutcomeUnknown("etcd ended the lease stream")
        endpoint.worked(started)
        return int(reply.TTL)
