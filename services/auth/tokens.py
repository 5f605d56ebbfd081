"""Tokens: who may make which, how long they live, how they end. Pure functions of a view.

Rules:
* A token is a child of its maker, and dead when any ancestor is. An orphan has no ancestors; making one needs
  `sudo` on `auth/tokens`.
* Its policies must exist and be among its maker's, unless the maker has `sudo` on `auth/tokens`; only a maker
  with `root` gives `root` (`policy_delegation`). `default` is added unless refused; duplicates are dropped;
  names are kept as the policy spells them.
* It lives 1 h unless asked otherwise, never beyond 32 days (or `max_ttl`) from its making, never beyond its
  ancestors. Renewing moves the expiry within the same bounds, never back; a token with a period is always
  renewed by that.
* A token with a limited number of uses makes no children, since nobody would count their uses. Each request
  takes one use, refused or not. After the last one the token is dead like an expired one, but its leases go
  on. A request that asks for its use again, because an answer was lost, gets the one it was given.
* A token that a login gives has no parent.
* How many live below one token, or by one user's or role's logins, is limited (services.auth.quotas).
* A dead token is not found, nor is text that cannot be an accessor; but permission is checked first. Revoking
  a revoked token succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.auth import policy_delegation, quotas
from services.auth.repository import Repository
from strongbox.access import token_format as access
from strongbox.access.guard import MAX_ANCESTORS, Caller, Guard, earliest
from strongbox.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated
from strongbox.lease_records.counters import Tally
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from strongbox.store.space.admission import Effect

PATH = "auth/tokens"
SELF_PATH = "auth/tokens/self"
UNKNOWN_PATH = "auth/tokens/unknown"  # for text that cannot be an accessor; every accessor is longer
DEFAULT_TTL_S = 3600
MAX_TTL_S = 32 * 86_400
MAX_USES = 1_000_000
RECENT_USES, RECENT_MS = 8, 10_000  # a request that asks again does so within its deadline
MAX_DISPLAY_NAME = 128  # characters


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks for; durations in seconds, `None` when not asked."""

    policies: tuple[str, ...] = ()
    ttl_s: int | None = None
    max_ttl_s: int | None = None
    period_s: int | None = None
    display_name: str = ""
    num_uses: int = 0
    orphan: bool = False
    no_default: bool = False


class Fresh(NamedTuple):
    """The randomness of one new token, made before it is decided: deciding again gives the same token."""

    token: str
    accessor: str

    @classmethod
    def make(cls) -> Fresh:
        return cls(access.new_token(), access.new_accessor())


class Told(NamedTuple):
    """A token's record and the moment (milliseconds) at which it was read."""

    record: storage.TokenRecord
    now_ms: int


def path_of(accessor: str) -> str:
    """What policies call a token. Malformed text gets neither into a policy path nor into the audit log."""
    return f"{PATH}/{accessor}" if access.is_accessor(accessor) else UNKNOWN_PATH


def require_sound(wanted: Wanted) -> Wanted:
    """Raise `InvalidInput` for settings that no caller may ask for."""
    require_uses(wanted.num_uses, "num_uses")
    for name, seconds in (("ttl", wanted.ttl_s), ("max_ttl", wanted.max_ttl_s), ("period", wanted.period_s)):
        if seconds == 0:
            raise InvalidInput(f"{name} is at least one second")
    policy_delegation.require_names(wanted.policies)
    if len(wanted.display_name) > MAX_DISPLAY_NAME or not wanted.display_name.isprintable():
        raise InvalidInput(f"display_name is at most {MAX_DISPLAY_NAME} printable characters")
    if not wanted.policies and wanted.no_default:
        raise InvalidInput("a token needs at least one policy")
    return wanted


def require_uses(number: int, field: str) -> int:
    """A number of uses; 0: not limited. Raises `InvalidInput`."""
    if not 0 <= number <= MAX_USES:
        raise InvalidInput(f"{field} is 0 (not limited) to {MAX_USES}")
    return number


class Tokens:
    """Decisions about tokens; each takes a `Caller`, which only the guard gives."""

    def __init__(self, guard: Guard, repository: Repository) -> None:
        self._guard, self._repository = guard, repository

    def create(self, view: View, caller: Caller, wanted: Wanted, fresh: Fresh) -> Told:
        """Make a token. Raises `PermissionDenied`, `InvalidInput`, `QuotaExceeded`."""
        if wanted.orphan or wanted.period_s:
            caller.require("sudo", PATH)
        if caller.record.num_uses:
            raise PermissionDenied("a token with a limited number of uses makes no others")
        policies = self._policies(view, caller, wanted)
        line = () if wanted.orphan else (caller.digest, *caller.record.ancestors)
        if len(line) > MAX_ANCESTORS:
            raise InvalidInput(f"a token has at most {MAX_ANCESTORS} ancestors")
        record = _record(view.now_ms, caller, wanted, fresh, policies, line)
        record.quota, record.holder = quotas.group_of(caller), quotas.holder_of(caller)
        self._repository.add_token(view, access.digest(fresh.token), record)
        return Told(record, view.now_ms)

    def issue(self, view: View, wanted: Wanted, fresh: Fresh, group: str, holder: str = "") -> Told:
        """Make a token without a parent, for a login of a user or role; `holder`: strongbox.access.groups.

        Raises `InvalidInput` when a policy is gone, `QuotaExceeded` when `group` is full.
        """
        policies = policy_delegation.spelt(
            self._guard.lookup, view, (*wanted.policies, access.DEFAULT_POLICY)
        )
        record = _record(view.now_ms, None, wanted, fresh, policies, ())
        record.quota, record.holder = group, holder
        self._repository.add_token(view, access.digest(fresh.token), record)
        return Told(record, view.now_ms)

    def spend(self, view: View, digest: str, request_id: str) -> int:
        """Take one use of a token for a request; returns its number, the same for the same request.

        Raises `Unauthenticated` when the token is dead, or has no limit of uses.
        """
        record = self._guard.lookup.token(view, digest)
        if record is None or not record.num_uses:
            raise Unauthenticated
        known = _use_of(record, request_id, view.now_ms)
        if known:  # even the last one: the guard decides whether the request may use it
            return known
        if not self._guard.is_alive(view, record):
            raise Unauthenticated
        inherited = self._guard.ancestors_expiry(view, record) or 0
        view.before(earliest(record.expires_ms, inherited))
        view.means(Effect.SAFETY)  # the request may be one that revokes
        spent = storage.TokenRecord()
        spent.CopyFrom(record)
        spent.uses_spent += 1
        del spent.recent_uses[: max(0, len(spent.recent_uses) - RECENT_USES + 1)]
        spent.recent_uses.add(request_id=request_id, use=spent.uses_spent, at_ms=view.now_ms)
        self._repository.rewrite_token(view, digest, spent)
        return int(spent.uses_spent)

    def lookup(self, view: View, accessor: str) -> Told:
        """A living token by its accessor. Raises `NotFound`."""
        _, record = self._living(view, accessor)
        return Told(record, view.now_ms)

    def renew(self, view: View, accessor: str, increment_s: int | None) -> Told:
        """Move a living token's expiry. Raises `NotFound`, and `InvalidInput` for one that never expires."""
        digest, record = self._living(view, accessor)
        if not record.expires_ms:
            raise InvalidInput("a token without expiry needs no renewing")
        inherited = self._guard.ancestors_expiry(view, record) or 0
        view.before(earliest(record.expires_ms, inherited))  # a dead token is never brought back
        step_s = record.period_s or increment_s or record.ttl_s
        asked_ms = view.now_ms + step_s * 1000
        expires_ms = max(record.expires_ms, earliest(asked_ms, record.max_expires_ms, inherited))
        self._repository.move_expiry(view, digest, record, expires_ms)
        renewed = storage.TokenRecord()
        renewed.CopyFrom(record)
        renewed.expires_ms = expires_ms
        return Told(renewed, view.now_ms)

    def revoke(self, view: View, accessor: str) -> None:
        """Revoke a token, dead or alive; one that is not there is revoked already. Raises `NotFound`."""
        found = self._repository.find(view, _require_accessor(accessor))
        if found is not None:
            tally = Tally()
            self._repository.revoke(view, *found, tally)
            tally.settle(view)
        elif view.get(keyspace.accessor(accessor)).value is None:
            # A repeated request succeeds however full etcd is. An effect counts only where something changes:
            # so a key that is gone is deleted again, which costs nothing.
            view.means(Effect.SAFETY)
            view.delete(keyspace.accessor(accessor))

    def living(self, view: View, found: Sequence[tuple[str, str]]) -> list[str]:
        """Of (accessor, digest) pairs, the accessors of tokens that live."""
        view.prefetch(*(keyspace.token(digest) for _, digest in found))
        records = [(accessor, self._guard.lookup.token(view, digest)) for accessor, digest in found]
        return [
            accessor
            for accessor, record in records
            if record is not None and record.accessor == accessor and self._guard.is_alive(view, record)
        ]

    def _living(self, view: View, accessor: str) -> tuple[str, storage.TokenRecord]:
        found = self._repository.find(view, _require_accessor(accessor))
        if found is None or not self._guard.is_alive(view, found[1]):
            raise NotFound("there is no token of that accessor")
        return found

    def _policies(self, view: View, caller: Caller, wanted: Wanted) -> list[str]:
        """The new token's policies. Checks that the caller may give them, then that they exist."""
        policy_delegation.require_may_give(caller, PATH, wanted.policies)
        names = wanted.policies if wanted.no_default else (*wanted.policies, access.DEFAULT_POLICY)
        return policy_delegation.spelt(self._guard.lookup, view, names)


def _use_of(record: storage.TokenRecord, request_id: str, now_ms: int) -> int:
    """The use that was taken for this request a moment ago; 0: none."""
    for use in record.recent_uses:
        if request_id and use.request_id == request_id and now_ms < use.at_ms + RECENT_MS:
            return int(use.use)
    return 0


def _require_accessor(text: str) -> str:
    """Raise `NotFound` for text that cannot be an accessor: nothing malformed gets into an etcd key."""
    if not access.is_accessor(text):
        raise NotFound("there is no token of that accessor")
    return text


def _record(
    now_ms: int,
    caller: Caller | None,
    wanted: Wanted,
    fresh: Fresh,
    policies: list[str],
    line: tuple[str, ...],
) -> storage.TokenRecord:
    parent = None if wanted.orphan else caller
    parent_ends_ms = parent.expires_at_ms if parent is not None else 0
    parent_max_ms = parent.record.max_expires_ms if parent is not None else 0
    ttl_s = min(wanted.period_s or wanted.ttl_s or DEFAULT_TTL_S, MAX_TTL_S)
    longest_s = min(wanted.max_ttl_s or MAX_TTL_S, MAX_TTL_S)
    max_expires_ms = earliest(now_ms + longest_s * 1000, parent_max_ms)
    return storage.TokenRecord(
        accessor=fresh.accessor,
        policies=policies,
        created_ms=now_ms,
        expires_ms=earliest(now_ms + ttl_s * 1000, max_expires_ms, parent_ends_ms),
        max_expires_ms=max_expires_ms,
        period_s=min(wanted.period_s or 0, MAX_TTL_S),
        ttl_s=ttl_s,
        parent=parent.accessor if parent is not None else "",
        ancestors=line,
        display_name=wanted.display_name,
        orphan=parent is None,
        num_uses=wanted.num_uses,
    )
