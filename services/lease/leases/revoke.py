"""Ending credentials: write that it begins, drop the roles, write the results; each step can be repeated.

    begin    one decision for a group: PENDING (or ABANDONED), one attempt more, the next due by itself
    remove   PostgreSQL, each connection by itself
    finish   one decision for the group: REVOKED, or the reason why not; recorded in the audit trail

Each credential whose role is gone, and each whose first attempt failed, is recorded in the transaction that
writes it. (Later failures, every 40 s for ever, would say nothing new and fill the audit log.) If a process
dies between two steps, the reaper goes on when the next attempt is due. Two attempts at the same time do no
harm: dropping a role that is gone succeeds.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import structlog

from services.lease import credential_lease, repository
from services.lease.connections.server_cache import Databases, Stored
from services.lease.guarded_call import RESERVE
from services.lease.metrics import Measures
from services.lease.postgres.connection_pool import Desk
from services.lease.postgres.ending import drop_roles
from services.lease.postgres.errors import PostgresFailure
from services.lease.postgres.login_roles import Role, comment_of, issuer_of
from services.lease.revocation_backoff import Backoff
from strongbox.access.record_reader import Lookup
from strongbox.errors import DependencyDown, StrongBoxError
from strongbox.lease_records.counters import Tally
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Effect, Outcome, Pipeline, Work
from strongbox.store.decisions.view import View

T = TypeVar("T")
OP = "EndCredential"
GROUP = 32  # leases of one decision and one job
DEADLINE = 5.0  # seconds for one transaction
PATIENCE = 4.0  # seconds for one job
_TOO_SHORT = 0.2  # seconds; with less than that no job is begun
_log = structlog.get_logger(__name__)


class Fence(Protocol):
    """What a decision of a duty compares (strongbox.store.duties.election.Term)."""

    def require(self, view: View, /) -> None:
        """Make the decision depend on the term; raises when it is over."""

    def progress(self) -> None:
        """A pass was done, or a part of a long one."""


class Begun(NamedTuple):
    """Leases that are being ended, and where their roles are (None: nobody knows any more)."""

    records: list[credential_lease.Record]
    connections: dict[str, Stored | None]
    cluster_id: str


def begin(
    view: View, lookup: Lookup, names: Sequence[str], fence: Fence | None, backoff: Backoff, *, due_only: bool
) -> Begun:
    """Of these leases, begin to end those that are due, or all that were asked to end. Pure."""
    if fence is not None:
        fence.require(view)
    keys, tally, begun = lookup.require_keys(), Tally(), []
    view.prefetch(keyspace.CLUSTER_ID, keyspace.CLUSTER_TIME, *(keyspace.grant(name) for name in names))
    now_ms = int(view.get(keyspace.CLUSTER_TIME).value or view.now_ms)
    for name in names:
        record = repository.find_grant(view, keys, name)
        if record is None or record.state == credential_lease.REVOKED:
            continue
        if due_only and credential_lease.due_ms(record) > view.now_ms:
            continue
        if not due_only and record.state not in (credential_lease.PENDING, credential_lease.ABANDONED):
            continue
        begun.append(credential_lease.begun(record, now_ms, backoff))
        repository.put_grant(view, keys, begun[-1], record, tally)
    tally.settle(view)
    connections = {record.connection: _stored(view, lookup, record.connection) for record in begun}
    return Begun(begun, connections, (view.get(keyspace.CLUSTER_ID).value or b"").decode())


def finish(
    view: View,
    lookup: Lookup,
    fence: Fence | None,
    tried: Sequence[credential_lease.Record],
    failures: dict[str, str],
) -> list[credential_lease.Record]:
    """Write the results: `failures` holds, by lease id, why the role is there still, or "": it is gone. Pure.

    `tried`: as they were when the attempt began.
    """
    next_ms = {record.id: record.next_ms for record in tried}
    if fence is not None:
        fence.require(view)
    keys, tally, ended = lookup.require_keys(), Tally(), []
    view.prefetch(*(keyspace.grant(name) for name in failures))
    for name, why in failures.items():
        record = repository.find_grant(view, keys, name)
        if record is None or record.state not in (credential_lease.PENDING, credential_lease.ABANDONED):
            continue
        if record.state == credential_lease.ABANDONED and record.next_ms != next_ms.get(name):
            continue  # its role was made meanwhile, after it was looked for: it is due again at once
        if why:
            repository.put_grant(view, keys, credential_lease.failed(record, why), record, tally)
            if not record.last_error and credential_lease.is_live(record):
                view.record(_draft(record, failed=True))
            continue
        after = credential_lease.ended(record, view.now_ms)
        if credential_lease.is_live(record):
            view.record(_draft(record, failed=False))
        if after is None:
            repository.drop_grant(view, record, tally)
        else:
            repository.put_grant(view, keys, after, record, tally)
        ended.append(record)
    tally.settle(view)
    return ended


def _draft(record: credential_lease.Record, *, failed: bool) -> Draft:
    """A record under the credential's path and accessor; the lease's id stands in place of a request id."""
    return Draft(
        op=OP,
        path=record.path,
        request_id=record.id,
        client="",
        accessor=record.accessor,
        outcome="refused" if failed else "ok",
        reason=DependencyDown.reason if failed else "",
    )


class Revoker:
    """Ends credentials, for the reaper and for requests."""

    def __init__(
        self, pipeline: Pipeline, lookup: Lookup, databases: Databases, backoff: Backoff, measures: Measures
    ) -> None:
        self._pipeline, self._lookup, self._databases = pipeline, lookup, databases
        self._backoff, self._measures = backoff, measures

    async def want(self, names: Sequence[str], deadline: float) -> None:
        """Mark these leases to end; the reaper ends them. Raises StrongBoxError."""
        for some in chunks(names, GROUP):
            await self._pipeline.submit(
                Work(_wanting(self._lookup, some), None, deadline, effect=Effect.FREES)
            )

    async def end(
        self, names: Sequence[str], *, fence: Fence | None = None, patience: float = PATIENCE
    ) -> set[str]:
        """End these leases, those that are due when it is a duty's work; returns the ids whose role is gone.

        Raises StrongBoxError when etcd does not answer: then the next attempt is due by itself. A full audit
        outbox does not stop this: there are no more ends, and so records of ends, than credentials were
        issued.
        """
        groups = [self._end_group(some, fence, patience) for some in chunks(names, GROUP)]
        results = await asyncio.gather(*groups, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return set().union(*(result for result in results if not isinstance(result, BaseException)))

    async def end_within(self, deadline: float, names: Sequence[str]) -> set[str]:
        """`end`, as far as a request's time (monotonic) allows and etcd answers; the reaper does the rest."""
        left = deadline - time.monotonic() - RESERVE
        if not names or left < _TOO_SHORT:
            return set()
        try:
            return await self.end(names, patience=left)
        except StrongBoxError:
            return set()

    async def _end_group(self, names: list[str], fence: Fence | None, patience: float) -> set[str]:
        started = time.monotonic()
        due_only = fence is not None
        begun = (
            await self._submit(
                lambda view: begin(view, self._lookup, names, fence, self._backoff, due_only=due_only)
            )
        ).value
        by_connection: dict[str, list[credential_lease.Record]] = defaultdict(list)
        for record in begun.records:
            by_connection[record.connection].append(record)
        removing = [
            self._remove(begun.connections[name], records, begun.cluster_id, patience)
            for name, records in by_connection.items()
        ]
        failures: dict[str, str] = {}
        for told in await asyncio.gather(*removing):
            failures |= told
        if not failures:
            return set()
        ended = (
            await self._submit(lambda view: finish(view, self._lookup, fence, begun.records, failures))
        ).value
        gone, seconds = {record.id for record in ended}, time.monotonic() - started
        self._measures.ended(begun.records, gone, seconds, duty=fence is not None)
        return gone

    async def _remove(
        self, stored: Stored | None, records: list[credential_lease.Record], cluster_id: str, patience: float
    ) -> dict[str, str]:
        """Drop the roles; returns, by lease id, why a role is still there, or "": it is gone."""
        if stored is None:
            why = "its connection does not exist"
            # An abandoned credential was never given out; of others people have to know.
            return {one.id: "" if one.state == credential_lease.ABANDONED else why for one in records}
        # Those that resisted before come last: however long they take, the others are gone by then.
        records = sorted(records, key=lambda one: one.attempts)
        roles = {
            one.id: Role(one.username, comment_of(cluster_id, one.id), one.template_role) for one in records
        }
        issuers = [issuer_of(one.id) for one in records if one.state == credential_lease.ABANDONED]

        def job(desk: Desk) -> dict[str, str]:
            if issuers:
                drop_roles.stop_issuers(desk.session, issuers)
            return drop_roles.remove(desk.session, desk.enter, list(roles.values()))

        try:
            still = await self._databases.at(stored).run(job, patience)
        except (PostgresFailure, StrongBoxError) as error:
            _log.warning("credentials could not be ended", connection=stored.record.name, why=str(error))
            return dict.fromkeys(roles, str(error) or "PostgreSQL does not answer")
        except Exception:  # noqa: BLE001  one defect must not cost the others of its group their attempt
            _log.exception("ending credentials failed", connection=stored.record.name)
            return dict.fromkeys(roles, "the attempt failed")
        return {name: still.get(role.username, "") for name, role in roles.items()}

    async def _submit(self, decide: Callable[[View], T]) -> Outcome[T]:
        return await self._pipeline.submit(
            Work(decide, None, time.monotonic() + DEADLINE, effect=Effect.FREES)
        )


def _wanting(lookup: Lookup, names: Sequence[str]) -> Callable[[View], None]:
    def decide(view: View) -> None:
        keys, tally = lookup.require_keys(), Tally()
        view.prefetch(*(keyspace.grant(name) for name in names))
        for name in names:
            record = repository.find_grant(view, keys, name)
            wanted = credential_lease.wanted(record, view.now_ms) if record is not None else None
            if record is not None and wanted is not None and wanted != record:
                repository.put_grant(view, keys, wanted, record, tally)
        tally.settle(view)

    return decide


def _stored(view: View, lookup: Lookup, name: str) -> Stored | None:
    record = repository.find_connection(view, lookup.require_keys(), name)
    if record is None:
        return None
    return Stored(record, view.get(repository.connection_key(name)).mod_revision)


def chunks(names: Sequence[str], size: int) -> Iterator[list[str]]:
    """These names, `size` at a time."""
    rest = iter(names)
    while some := list(islice(rest, size)):
        yield some
