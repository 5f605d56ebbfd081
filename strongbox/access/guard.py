"""The guard: who is asking, and whether he may. Pure over a view: the effect's transaction proves the answer.

Rules, in this order; the first that fails refuses:
1. The cluster is initialized (`NotInitialized`) and unsealed (`Sealed`), and this process has record keys,
   that of the term in use among them (`DependencyDown`): nothing is made under an older one.
2. The token has a token's form; its record stands under its digest, verifies, and has not expired. The same
   holds for the records of all its ancestors: a token ends when one of them is revoked or lost
   (`Unauthenticated`, one text for all).
   A token with a limited number of uses needs one that auth took for this very request (`UseNeeded`).
3. From here on a refusal is audited in the caller's name: the draft gets the accessor.
4. Every policy the token names exists, in this spelling: one that is missing, or forged, might have held a
   `deny` (`PermissionDenied`).
5. The winning pattern allows the capability (`PermissionDenied`); only then is looked whether a thing exists.

Everything read is compared by the transaction: token, ancestors, policies, seal state; the earliest expiry of
token and ancestors is compared with `cluster/time`. A policy is compiled once for each of its revisions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from strongbox import paths
from strongbox.access import token_format
from strongbox.access.authenticated_records import term_in_use
from strongbox.access.policy_engine import CompiledPolicy, Decision, Policies
from strongbox.access.policy_narrowing import may_widen
from strongbox.access.record_reader import ROOT, KeySource, Lookup, StoredPolicy, policy_keys
from strongbox.access.token_groups import Groups, groups_of
from strongbox.errors import PermissionDenied, Unauthenticated
from strongbox.rpc.request_context import UseNeeded
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

if TYPE_CHECKING:
    from strongbox.rpc.request_context import Inbound

MAX_NODES = 16_384  # of one token's policies: compiled in some 20 ms, once, and walked in a few at worst
MAX_COMPILED_NODES = 4 * MAX_NODES  # of all that is kept: some 20 MiB
MAX_ANCESTORS = 16  # each is one compare more


class Caller:
    """Somebody the guard has let in; only the guard makes one.

    He is valid for the view of one decision, whose transaction proves him: a second transaction has to ask
    the guard again. Every use after the view's end raises RuntimeError.
    """

    __slots__ = ("_compiled", "_expires_at_ms", "_record", "_token_key", "_view")

    def __init__(
        self,
        view: View,
        record: storage.TokenRecord,
        token_key: bytes,
        expires_at_ms: int,
        compiled: Policies,
    ) -> None:
        self._view, self._record, self._token_key = view, record, token_key
        self._expires_at_ms, self._compiled = expires_at_ms, compiled

    @property
    def record(self) -> storage.TokenRecord:
        """The token's record, not to be changed."""
        self._view.require_open()
        return self._record

    @property
    def accessor(self) -> str:
        """The name of the token in logs."""
        return self.record.accessor

    @property
    def groups(self) -> Groups:
        """Whose the token is when something is counted."""
        return groups_of(self.record)

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the token's policies."""
        return tuple(self.record.policies)

    @property
    def token_key(self) -> bytes:
        """The etcd key of the token's record."""
        self._view.require_open()
        return self._token_key

    @property
    def expires_at_ms(self) -> int:
        """The earliest expiry of the token and its ancestors; 0: never."""
        self._view.require_open()
        return self._expires_at_ms

    @property
    def digest(self) -> str:
        """The token's digest, the name of its record."""
        return self.token_key.removeprefix(keyspace.TOKENS).decode()

    @property
    def is_root(self) -> bool:
        """Whether the built-in root policy is among the caller's."""
        return self._rights.is_root

    @property
    def denying(self) -> frozenset[str]:
        """The caller's policies that deny something, by their folded names."""
        return self._rights.denying

    def may_do_less_than(self, names: Set[str]) -> bool:
        """Whether his policies of these (folded) names might allow more without the others."""
        kept = [policy for policy in self._rights.compiled if policy.name in names]
        dropped = [policy for policy in self._rights.compiled if policy.name not in names]
        return not self._rights.is_root and may_widen(kept, dropped)

    def decide(self, capability: str, path: str) -> Decision:
        """What the caller's policies say of `capability` on a policy path."""
        return self._rights.decide(capability, path)

    def allows(self, capability: str, path: str) -> bool:
        """Whether the caller's policies allow `capability` on a policy path."""
        return self._rights.decide(capability, path).allowed

    def require(self, capability: str, path: str) -> None:
        """Raise `PermissionDenied` unless the caller may: for a second capability or path of one call."""
        if not self.allows(capability, path):
            raise PermissionDenied

    @property
    def _rights(self) -> Policies:
        self._view.require_open()
        return self._compiled


class Guard:
    """Authenticates and authorizes; one per process."""

    def __init__(self, source: KeySource) -> None:
        self.lookup = Lookup(source)
        self._compiled: OrderedDict[StoredPolicy, CompiledPolicy] = OrderedDict()
        self._nodes = 0

    def require(self, view: View, inbound: Inbound, capability: str, policy_path: str) -> Caller:
        """The caller, if he may use `capability` on `policy_path`; raises as the module says."""
        caller = self.authenticate(view, inbound)
        caller.require(capability, policy_path)
        return caller

    def authenticate(self, view: View, inbound: Inbound) -> Caller:
        """The caller, whatever his policies allow; raises as the module says, rules 1 to 4."""
        self.lookup.use_term(require_unsealed(view, inbound))
        self.lookup.require_keys()
        digest, record = self._token(view, inbound)
        expires_ms = self._require_alive(view, record)
        require_use(inbound, record)
        if view.draft is not None:
            view.draft.accessor = record.accessor
        compiled = self.policies_of(view, tuple(record.policies))
        return Caller(view, record, keyspace.token(digest), expires_ms, compiled)

    def is_alive(self, view: View, record: storage.TokenRecord) -> bool:
        """Whether a token has uses left, its ancestors exist, and none has expired by this replica's time."""
        inherited = self.ancestors_expiry(view, record)
        if inherited is None or is_spent(record):
            return False
        expires_ms = earliest(record.expires_ms, inherited)
        return not expires_ms or view.now_ms < expires_ms

    def ancestors_expiry(self, view: View, record: storage.TokenRecord) -> int | None:
        """The earliest expiry of the ancestors, in milliseconds; 0: never; `None`: one of them is gone."""
        view.prefetch(*ancestor_keys(record))
        line = [self.lookup.token(view, digest) for digest in record.ancestors]
        standing = [member.expires_ms for member in line if member is not None]
        return earliest(*standing) if len(standing) == len(line) else None

    def policies_of(self, view: View, names: tuple[str, ...]) -> Policies:
        """The compiled policies of these names. Raises `PermissionDenied` when one is missing."""
        view.prefetch(*policy_keys(names))
        found = []
        for name in names:
            policy = self.lookup.policy(view, name)
            if policy is None or policy.name != name:
                raise PermissionDenied("the token names a policy that does not exist", policy=name)
            found.append(policy)
        return self._together(found)

    def _token(self, view: View, inbound: Inbound) -> tuple[str, storage.TokenRecord]:
        if not token_format.is_token(inbound.token):
            raise Unauthenticated
        digest = token_format.digest(inbound.token)
        record = self.lookup.token(view, digest)
        if record is None:
            raise Unauthenticated
        return digest, record

    def _require_alive(self, view: View, record: storage.TokenRecord) -> int:
        """The earliest expiry of the token and its ancestors (0: never); raises `Unauthenticated`."""
        # The policies are named together with the ancestors: one round trip instead of two.
        view.prefetch(*ancestor_keys(record), *policy_keys(tuple(record.policies)))
        inherited = self.ancestors_expiry(view, record)
        if inherited is None:
            raise Unauthenticated
        expires_ms = earliest(record.expires_ms, inherited)
        if expires_ms:
            if view.now_ms >= expires_ms:
                raise Unauthenticated
            view.before(expires_ms)
        return expires_ms

    def _together(self, found: Sequence[StoredPolicy]) -> Policies:
        # Sorted by name, so that the order in which the token names them changes nothing.
        ordered = sorted(set(found), key=lambda policy: policy.name)
        compiled, nodes = [], 0
        for policy in ordered:  # summed on the way: what is refused costs no more than what is allowed
            compiled.append(self._compile(policy))
            nodes += compiled[-1].nodes
            if nodes > MAX_NODES:
                raise PermissionDenied("the token's policies are too large together")
        return Policies(compiled, is_root=ROOT in found)

    def _compile(self, policy: StoredPolicy) -> CompiledPolicy:
        compiled = self._compiled.get(policy)
        if compiled is None:
            compiled = CompiledPolicy(paths.fold_name(policy.name), policy.rules)
            self._compiled[policy] = compiled
            self._nodes += compiled.nodes
            while len(self._compiled) > 1 and self._nodes > MAX_COMPILED_NODES:
                self._nodes -= self._compiled.popitem(last=False)[1].nodes
        self._compiled.move_to_end(policy)
        return compiled


def is_spent(record: storage.TokenRecord) -> bool:
    """Whether no use is left of a token that has a limited number of them."""
    return 0 < record.num_uses <= record.uses_spent


def require_use(inbound: Inbound, record: storage.TokenRecord) -> None:
    """Raise `UseNeeded` unless auth took a use for this request and the token's record counts it.

    Auth numbers uses in the transaction that takes them, so two requests never have the same one.
    """
    if record.num_uses and not 0 < inbound.use <= record.uses_spent:
        raise UseNeeded


def earliest(*moments_ms: int) -> int:
    """The smallest of these moments, 0 being never."""
    return min((moment for moment in moments_ms if moment), default=0)


def ancestor_keys(record: storage.TokenRecord) -> tuple[bytes, ...]:
    """The etcd keys of a token's ancestors, the parent first."""
    return tuple(keyspace.token(digest) for digest in record.ancestors)


def require_unsealed(view: View, inbound: Inbound) -> int:
    """The key term in use; the token's key is read in the same round trip.

    Raises `NotInitialized`, `Sealed`.
    """
    also = (
        (keyspace.token(token_format.digest(inbound.token)),) if token_format.is_token(inbound.token) else ()
    )
    view.prefetch(keyspace.SEAL_STATE, *also)
    term = term_in_use(view.get(keyspace.SEAL_STATE).value)
    view.found_unsealed()
    return term
