"""Issuing a credential: intent → role in PostgreSQL → ACTIVE → the password leaves, once.

* The intent is committed before PostgreSQL hears of the role. So if a process dies on the way, the reaper
  finds the intent: after 15 s it is given up, and its role is looked for.
* Token, policies and the absence of a marker of revocation are compared at the intent and again when the
  lease becomes ACTIVE: a token that is revoked meanwhile gets nothing, and its role is dropped.
* If the role surely was not made, the intent is deleted; if it may have been made, the intent is given up at
  once.
* The password is made here and stands in the answer and nowhere else; PostgreSQL gets a verifier.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import structlog

from services.lease import credential_lease, repository
from services.lease.connections import database_roles
from services.lease.connections.server_cache import Databases, Stored
from services.lease.guarded_call import Calls
from services.lease.metrics import Measures
from services.lease.postgres import catalog, login_roles, scram
from services.lease.postgres.connection_pool import Desk
from services.lease.postgres.errors import Lost, PostgresFailure, Rejected, Unreachable
from services.lease.postgres.login_roles import Role, comment_of, issuer_of
from strongbox import paths
from strongbox.access.guard import Caller, earliest
from strongbox.access.record_reader import Lookup
from strongbox.errors import (
    DependencyDown,
    InvalidInput,
    NotFound,
    StrongBoxError,
    Unauthenticated,
    UnknownOutcome,
)
from strongbox.lease_records import counters
from strongbox.lease_records.counters import Tally
from strongbox.rpc.request_context import Inbound
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

OP, INTENT_OP = "IssueCredential", "PrepareCredential"
PATIENCE = 2.5  # seconds for PostgreSQL, of the 4.5 that a request has
RESERVE = 0.8  # seconds kept for what follows
_log = structlog.get_logger(__name__)


def policy_path(role: str) -> str:
    """What policies call a credential."""
    return f"dynamic-postgres/{role}"


@dataclass(frozen=True, slots=True)
class Fresh:
    """The randomness of one credential, made before it is decided."""

    id: str
    password: str = field(repr=False)

    @classmethod
    def make(cls) -> Fresh:
        """A new one."""
        return cls(credential_lease.fresh_id(), scram.new_password())


class Plan(NamedTuple):
    """The intent that was written, and where its role is to be made."""

    record: credential_lease.Record
    template: str
    connection: Stored
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential, as its caller gets it."""

    record: credential_lease.Record
    password: str = field(repr=False)
    now_ms: int


def intend(view: View, lookup: Lookup, caller: Caller, name: str, fresh: Fresh) -> Plan:
    """Write the intent. Raises `PermissionDenied`, `NotFound`, `QuotaExceeded`, `DependencyDown`. Pure."""
    caller.require("read", policy_path(name))
    keys = lookup.require_keys()
    require_unmarked(view, caller)
    role = database_roles.read(view, lookup, name)
    connection = repository.find_connection(view, keys, role.connection)
    if connection is None:
        raise NotFound("the connection of the database role does not exist")
    if connection.closing:
        raise DependencyDown("the connection is being deleted")
    role_key = counters.role_key(role.name)
    view.prefetch(
        *counters.token_keys(caller.groups, fresh.id), role_key,
        counters.connection_key(role.connection, fresh.id), keyspace.grant(fresh.id),
    )  # fmt: skip
    counters.require_lease_room(view, caller.groups, fresh.id)
    counters.require_room(view, role_key, role.max_leases, "database role")
    max_ms = view.now_ms + role.max_ttl_s * 1000
    record = credential_lease.Record(
        id=fresh.id,
        path=policy_path(role.name),
        accessor=caller.accessor,
        holder=caller.groups.holder,
        group=caller.groups.group,
        state=credential_lease.INTENT,
        role=role.name,
        connection=connection.name,
        username=credential_lease.username_of(fresh.id),
        template_role=role.template_role,
        ttl_s=role.default_ttl_s,
        issued_ms=view.now_ms,
        expires_ms=earliest(view.now_ms + role.default_ttl_s * 1000, max_ms, caller.expires_at_ms),
        # As long as the token can be renewed, not as long as it lives today: renewing checks that.
        max_expires_ms=earliest(max_ms, caller.record.max_expires_ms),
    )
    tally = Tally()
    repository.put_grant(view, keys, record, None, tally)
    tally.settle(view)
    revision = view.get(repository.connection_key(connection.name)).mod_revision
    cluster_id = (view.get(keyspace.CLUSTER_ID).value or b"").decode()
    return Plan(record, role.template_role, Stored(connection, revision), cluster_id)


def activate(view: View, lookup: Lookup, caller: Caller, plan: Plan) -> Issued:
    """The role is made: the lease is ACTIVE, unless somebody has given it up. Pure."""
    caller.require("read", plan.record.path)
    require_unmarked(view, caller)
    keys = lookup.require_keys()
    record = repository.find_grant(view, keys, plan.record.id)
    if record is None or record.state != credential_lease.INTENT:
        raise DependencyDown("making the credential took too long")
    tally, after = Tally(), credential_lease.active(record)
    repository.put_grant(view, keys, after, record, tally)
    tally.settle(view)
    return Issued(after, "", view.now_ms)


def give_up(view: View, lookup: Lookup, name: str, *, surely_nothing: bool) -> None:
    """Delete an intent that surely has no role; have the role of any other looked for from now on. Pure.

    If others gave it up already and found no role, that is looked for at once: it may just have been made.
    """
    keys, tally = lookup.require_keys(), Tally()
    record = repository.find_grant(view, keys, name)
    if record is None or record.state not in (credential_lease.INTENT, credential_lease.ABANDONED):
        return
    if record.state == credential_lease.ABANDONED:
        if not surely_nothing:
            repository.put_grant(view, keys, credential_lease.made_late(record), record, tally)
    elif surely_nothing:
        repository.drop_grant(view, record, tally)
    else:
        repository.put_grant(view, keys, credential_lease.wanted(record, view.now_ms), record, tally)
    tally.settle(view)


def require_unmarked(view: View, caller: Caller) -> None:
    """Raise `Unauthenticated` when there is a marker that the token was revoked; its absence is compared."""
    if view.get(keyspace.REVOKED + caller.digest.encode()).value is not None:
        raise Unauthenticated


class Issuer:
    """Issues credentials."""

    def __init__(self, calls: Calls, databases: Databases, measures: Measures) -> None:
        self._calls, self._lookup = calls, calls.guard.lookup
        self._databases, self._measures = databases, measures

    async def issue(self, inbound: Inbound, name: str) -> Issued:
        """A credential of the database role `name`. Raises StrongBoxError."""
        started, fresh = time.monotonic(), Fresh.make()
        path = policy_path(paths.require_name(name, "database role"))
        plan = (await self._calls.act(inbound, INTENT_OP, path, self._intending(name, fresh))).value
        await self._make(inbound, path, plan, fresh)
        try:
            done = await self._calls.act(
                inbound, OP, path, lambda view, caller: activate(view, self._lookup, caller, plan)
            )
        except UnknownOutcome:
            raise  # it may be ACTIVE: then it expires
        except StrongBoxError:
            await self._give_up(plan, surely_nothing=False)
            raise
        self._measures.issue_seconds.observe(time.monotonic() - started)
        return replace(done.value, password=fresh.password)

    async def require_template(self, inbound: Inbound, stored: Stored, template: str) -> None:
        """Look for a template in its database. Raises `InvalidInput`, `DependencyDown`, `Sealed`."""
        left = inbound.deadline - time.monotonic() - RESERVE
        try:
            await self._databases.at(stored).run(
                lambda desk: catalog.require_template(desk.session, template), min(PATIENCE, max(0.1, left))
            )
        except Rejected as error:
            raise InvalidInput(str(error)) from None
        except PostgresFailure as error:
            raise DependencyDown(str(error)) from None

    def _intending(self, name: str, fresh: Fresh) -> Callable[[View, Caller], Plan]:
        def decide(view: View, caller: Caller) -> Plan:
            plan = intend(view, self._lookup, caller, name, fresh)
            known = self._databases.known(plan.connection)
            try:
                if known is not None:  # a server that is known to be down needs no intent
                    known.require_reachable()
            except Unreachable as error:
                raise DependencyDown(str(error)) from None
            return plan

        return decide

    async def _make(self, inbound: Inbound, path: str, plan: Plan, fresh: Fresh) -> None:
        """Make the role, or give the intent up and raise."""
        record = plan.record
        role = Role(record.username, comment_of(plan.cluster_id, record.id))
        # Rounded up, at least a second: the role must live as long as the lease.
        ttl_s = max(1, -(-(record.expires_ms - record.issued_ms) // 1000))

        def job(desk: Desk) -> None:
            verifier = scram.verifier(fresh.password)
            login_roles.create(desk.session, role, plan.template, verifier, ttl_s, issuer_of(record.id))

        left = inbound.deadline - time.monotonic() - RESERVE
        try:
            await self._databases.at(plan.connection).run(job, min(PATIENCE, max(0.1, left)))
        except (PostgresFailure, StrongBoxError) as error:
            await self._give_up(plan, surely_nothing=not isinstance(error, Lost))
            refusal = error if isinstance(error, StrongBoxError) else DependencyDown(str(error))
            raise await self._calls.refuse(inbound, OP, path, refusal) from None

    async def _give_up(self, plan: Plan, *, surely_nothing: bool) -> None:
        try:
            await self._calls.quietly(
                lambda view: give_up(view, self._lookup, plan.record.id, surely_nothing=surely_nothing), 1.0
            )
        except StrongBoxError as error:  # in 15 s the reaper finds it
            _log.warning("an intent is left to the reaper", lease=plan.record.id, reason=error.reason)
