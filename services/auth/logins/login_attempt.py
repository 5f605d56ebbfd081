"""What all logins share: refused while sealed, the source's allowance, then a token or one refusal.

* The refusal is always the same error and text: it does not say what was wrong (the name, the password, a
  lock, a network, an audience).
* The decision, its count, its audit record and the token are one transaction: a lock that was committed
  before refuses the login, whatever was found outside the transaction.
* A login, granted or refused, is neutral to etcd's space: quotas limit its tokens, and there are only as many
  counters as users, roles and 1024 sources (ADR 55). So filling the store locks nobody out, no guess goes
  uncounted, and a store that is too full for logins answers a right password like a wrong one.
* A success is recorded with the new token's accessor; a refusal as services.auth.logins.lockouts says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from services.auth.logins import lockouts
from services.auth.quotas import login_group
from services.auth.tokens import Fresh, Tokens, Told, Wanted
from strongbox.access.guard import Guard, require_unsealed
from strongbox.audit_outbox.outbox import draft_of
from strongbox.errors import (
    InvalidInput,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    StrongBoxError,
    Unauthenticated,
)
from strongbox.rpc.request_context import Inbound
from strongbox.store.decisions.pipeline import Effect, Pipeline, Work
from strongbox.store.decisions.view import View

T = TypeVar("T")


class Login(NamedTuple):
    """The new token, and its record."""

    token: str
    told: Told


class Refusal(NamedTuple):
    """A refused login, whose effects (counts, a record) are carried out all the same."""

    error: StrongBoxError
    is_recorded: bool


Verdict = Told | Refusal


class Who(NamedTuple):
    """Whose login it is; `kind`: `users`, `approles`, `kubernetes`.

    `holder`: the credential, where each machine has one of its own (strongbox.access.token_groups);
    empty: none.
    """

    kind: str
    name: str
    holder: str = ""


class Door:
    """Decides logins; one per process. `on_stranger(source)` counts refusals that are not recorded."""

    def __init__(
        self, pipeline: Pipeline, guard: Guard, tokens: Tokens, on_stranger: Callable[[str], None]
    ) -> None:
        self._pipeline, self._guard, self._tokens = pipeline, guard, tokens
        self._on_stranger = on_stranger

    async def look(self, inbound: Inbound, decide: Callable[[View], T]) -> T:
        """Read what must be known before slow work begins. Raises what sealed and throttled callers get."""

        def looked(view: View) -> T:
            self._enter(view, inbound)
            return decide(view)

        return await self._counted(inbound, Work(looked, None, inbound.deadline))

    async def through(
        self, inbound: Inbound, op: str, path: str, decide: Callable[[View, Fresh], Verdict]
    ) -> Login:
        """Decide a login. Raises `Unauthenticated`, `RateLimited`, `PermissionDenied`."""
        fresh = Fresh.make()

        def decided(view: View) -> Verdict:
            self._enter(view, inbound)
            return decide(view, fresh)

        work = Work(decided, draft_of(inbound, op, path), inbound.deadline)
        verdict = await self._counted(inbound, work)
        if isinstance(verdict, Told):
            return Login(fresh.token, verdict)
        if not verdict.is_recorded:
            self._on_stranger(inbound.client)
        raise verdict.error

    def grant(self, view: View, wanted: Wanted, fresh: Fresh, who: Who) -> Verdict:
        """The credential is right: forget failures, make a token."""
        view.means(Effect.NEUTRAL)
        lockouts.clear(view, lockouts.failure_key(who.kind, who.name))
        try:
            told = self._tokens.issue(view, wanted, fresh, login_group(who.kind, who.name), who.holder)
        except InvalidInput as gone:
            error = PermissionDenied("a policy that this login gives does not exist", **gone.metadata)
            return _without_token(view, error)
        except QuotaExceeded as full:
            return _without_token(view, full)
        if view.draft is not None:
            view.draft.accessor = told.record.accessor
        return told

    def refuse(self, view: View, inbound: Inbound, failure_key: bytes | None) -> Verdict:
        """Refuse, always with the same error. `failure_key` None: there is nobody of that name."""
        view.means(Effect.NEUTRAL)
        lockouts.take_allowance(view, self._source(inbound))
        if failure_key is None:
            view.draft = None
        else:
            lockouts.note(view, failure_key)
        error = Unauthenticated("the login was refused")
        return Refusal(error, is_recorded=view.draft is not None)

    def _enter(self, view: View, inbound: Inbound) -> None:
        require_unsealed(view, inbound)
        lockouts.require_allowance(view, self._source(inbound))

    def _source(self, inbound: Inbound) -> bytes:
        return lockouts.source_key(self._guard.lookup.require_keys(), inbound.client)

    async def _counted(self, inbound: Inbound, work: Work[T]) -> T:
        try:
            return (await self._pipeline.submit(work)).value
        except RateLimited:
            self._on_stranger(inbound.client)
            raise


def _without_token(view: View, error: StrongBoxError) -> Refusal:
    """A right credential that gets no token: the refusal is recorded, and nothing else is changed."""
    view.drop_effects()
    if view.draft is not None:
        view.draft.outcome, view.draft.reason = "refused", error.reason
    return Refusal(error, is_recorded=True)
