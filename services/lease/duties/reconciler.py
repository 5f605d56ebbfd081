"""Comparing roles in PostgreSQL with leases, a slice at a time, so that no role of ours is left for ever.

* A role that bears our cluster's id in its comment and has no lease, intent or pending revocation is an
  orphan: it is dropped, and that is recorded.
* A role with our prefix and any other comment, or none, is somebody else's: it is counted and reported only.
* A lease that is ACTIVE and whose role does not exist (somebody dropped it) is closed, and that is recorded.

The order of reading makes it safe. For orphans: roles first, then their leases (an intent is written before
its role is made). For vanished roles: ACTIVE leases first, then their roles (a role is made before its lease
is ACTIVE).
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog

from services.lease import credential_lease, repository
from services.lease.connections.server_cache import Databases, Stored
from services.lease.guarded_call import Calls
from services.lease.leases.revoke import Fence, chunks
from services.lease.metrics import Measures
from services.lease.postgres import catalog
from services.lease.postgres.connection_pool import Database, Desk
from services.lease.postgres.ending import drop_roles
from services.lease.postgres.errors import PostgresFailure
from services.lease.postgres.login_roles import Role
from strongbox.access.record_reader import Lookup
from strongbox.errors import StrongBoxError
from strongbox.lease_records import counters, index
from strongbox.lease_records.counters import Tally
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Effect, Outcome, Work
from strongbox.store.decisions.view import Row, View

T = TypeVar("T")
SLICE = 200  # leases looked at in one transaction; each is one compare
BREATH = 0.2  # seconds between slices: a million leases are looked through in about half an hour
DEADLINE = 5.0
PATIENCE = 4.0
_COMMENT = re.compile(r"strongbox:([0-9a-zA-Z-]+):(p[0-9a-f]{40})\Z")
_log = structlog.get_logger(__name__)


class Reconciler:
    """The duty. `pause`: seconds from one look at everything to the next."""

    def __init__(self, calls: Calls, databases: Databases, measures: Measures, pause: float) -> None:
        self._calls, self._lookup = calls, calls.guard.lookup
        self._databases, self._measures, self._pause = databases, measures, pause

    async def work(self, term: Fence) -> None:
        """Compare until cancelled at the end of the term."""
        while True:
            try:
                await self.one_pass(term)
                term.progress()
            except StrongBoxError as error:  # sealed, or no quorum
                _log.info("reconciling waits", reason=error.reason)
            await asyncio.sleep(self._pause)

    async def one_pass(self, term: Fence) -> None:
        """Look at every connection once."""
        after, strange, live = b"", 0, 0
        while rows := await self._page(term, keyspace.POSTGRES_CONNECTIONS, after):
            for row in rows:
                name = row.key.removeprefix(keyspace.POSTGRES_CONNECTIONS).decode("utf-8", "replace")
                stored = await self._stored(term, name)
                if stored is None:
                    continue
                live += await self._count(term, name)
                try:
                    strange += await self._compare(term, stored)
                except (PostgresFailure, StrongBoxError) as error:  # this server only: the others come next
                    _log.info("a server is not compared now", connection=name, why=str(error))
            after = rows[-1].key
        self._measures.strange_roles.set(strange)
        self._measures.live.set(live)

    async def _compare(self, term: Fence, stored: Stored) -> int:
        """Both directions for one connection; returns how many roles only look like ours."""
        database = self._databases.at(stored)
        strange = await self._orphans(term, database)
        await self._vanished(term, database, stored.record.name)
        return strange

    async def _orphans(self, term: Fence, database: Database) -> int:
        cluster_id = (await self._submit(lambda view: _cluster_id(view, term))).value
        after, strange = "", 0
        while True:
            seen = await database.run(_listing(after), PATIENCE)
            ours = {}
            for role in seen:
                found = _COMMENT.match(role.comment)
                if (
                    found
                    and found[1] == cluster_id
                    and credential_lease.username_of(found[2]) == role.username
                ):
                    ours[found[2]] = role
                elif not (found and found[1] != cluster_id):
                    strange += 1
                    _log.warning("a role is named like ours and is not", role=role.username)
            for names in chunks(list(ours), SLICE):
                unknown = (await self._submit(_unknowing(self._lookup, term, names))).value
                # If a lease became REVOKED since its role was listed, the role is gone: that is no orphan.
                usernames = [ours[name].username for name in unknown]
                gone = await database.run(_missing(usernames), PATIENCE) if unknown else set()
                for name in unknown:
                    if ours[name].username not in gone:
                        await self._drop(term, database, name, ours[name])
            if len(seen) < catalog.SLICE:
                return strange
            after = seen[-1].username
            await asyncio.sleep(BREATH)

    async def _drop(self, term: Fence, database: Database, name: str, seen: catalog.Seen) -> None:
        role = Role(seen.username, seen.comment)

        def job(desk: Desk) -> dict[str, str]:
            return drop_roles.remove(desk.session, desk.enter, [role])

        # Recorded before it is done: if this process dies in between, the next one finds the role again.
        draft = _draft("DropOrphanRole", f"dynamic-postgres/{seen.username}")
        await self._submit(term.require, draft)
        still = await database.run(job, PATIENCE)
        self._measures.orphans.inc(not still)
        _log.error("a role of ours without a lease", role=seen.username, lease=name, still=still)

    async def _vanished(self, term: Fence, database: Database, connection: str) -> None:
        after = b""
        prefix = index.by_connection_key(connection, "")
        while rows := await self._page(term, prefix, after):
            names = [index.name_in(row.key) for row in rows]
            active = (await self._submit(_finding_active(self._lookup, term, names))).value
            if active:
                usernames = [record.username for record in active]
                gone = await database.run(_missing(usernames), PATIENCE)
                for record in active:
                    if record.username in gone:
                        await self._close(term, record)
            after = rows[-1].key
            await asyncio.sleep(BREATH if len(rows) == SLICE else 0)

    async def _close(self, term: Fence, seen: credential_lease.Record) -> None:
        draft = _draft("CloseLeaseOfVanishedRole", f"leases/{seen.path}")
        if not (await self._submit(lambda view: close(view, self._calls, term, seen), draft)).value:
            return
        self._measures.orphans.inc()
        _log.error("the role of a lease has vanished", role=seen.username, lease=seen.id)

    async def _stored(self, term: Fence, name: str) -> Stored | None:
        def decide(view: View) -> Stored | None:
            term.require(view)
            record = repository.find_connection(view, self._lookup.require_keys(), name)
            if record is None:
                return None
            return Stored(record, view.get(repository.connection_key(name)).mod_revision)

        return (await self._submit(decide)).value

    async def _count(self, term: Fence, name: str) -> int:
        def decide(view: View) -> int:
            term.require(view)
            return counters.connection_count(view, name)

        return (await self._submit(decide)).value

    async def _page(self, term: Fence, prefix: bytes, after: bytes) -> tuple[Row, ...]:
        start = after + b"\0" if after else prefix

        def decide(view: View) -> None:
            term.require(view)
            view.fetch(start, keyspace.prefix_end(prefix), limit=SLICE, keys_only=True)

        return (await self._submit(decide)).rows

    async def _submit(self, decide: Callable[[View], T], draft: Draft | None = None) -> Outcome[T]:
        at = time.monotonic() + DEADLINE
        return await self._calls.pipeline.submit(Work(decide, draft, at, effect=Effect.FREES))


def close(view: View, calls: Calls, term: Fence, seen: credential_lease.Record) -> bool:
    """End a lease whose role does not exist; False (and no record) when it is being ended anyway. Pure."""
    term.require(view)
    lookup = calls.guard.lookup
    record, tally = repository.find_grant(view, lookup.require_keys(), seen.id), Tally()
    if record is None or record.state != credential_lease.ACTIVE:
        view.draft = None
        return False
    after = credential_lease.ended(credential_lease.wanted(record, view.now_ms), view.now_ms)
    if after is not None:
        repository.put_grant(view, lookup.require_keys(), after, record, tally)
    tally.settle(view)
    return True


def _unknowing(lookup: Lookup, term: Fence, names: list[str]) -> Callable[[View], list[str]]:
    def decide(view: View) -> list[str]:
        """Of these ids, those that no lease, intent or pending revocation knows."""
        term.require(view)
        keys = lookup.require_keys()
        view.prefetch(*(keyspace.grant(name) for name in names))
        found = ((name, repository.find_grant(view, keys, name)) for name in names)
        return [name for name, record in found if record is None or record.state == credential_lease.REVOKED]

    return decide


def _finding_active(
    lookup: Lookup, term: Fence, names: list[str]
) -> Callable[[View], list[credential_lease.Record]]:
    def decide(view: View) -> list[credential_lease.Record]:
        term.require(view)
        keys = lookup.require_keys()
        view.prefetch(*(keyspace.grant(name) for name in names))
        found: Iterable[credential_lease.Record | None] = (
            repository.find_grant(view, keys, name) for name in names
        )
        return [record for record in found if record is not None and record.state == credential_lease.ACTIVE]

    return decide


def _listing(after: str) -> Callable[[Desk], list[catalog.Seen]]:
    return lambda desk: catalog.roles_after(desk.session, after)


def _missing(usernames: list[str]) -> Callable[[Desk], set[str]]:
    return lambda desk: catalog.missing(desk.session, usernames)


def _cluster_id(view: View, term: Fence) -> str:
    term.require(view)
    return (view.get(keyspace.CLUSTER_ID).value or b"").decode()


def _draft(op: str, path: str) -> Draft:
    return Draft(op=op, path=path, request_id=str(uuid.uuid4()), client="")
