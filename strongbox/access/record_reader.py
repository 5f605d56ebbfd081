"""Reading tokens and policies through a view: verified once per revision, absent when forged.

Every reader of a token's or a policy's key goes through here: a view keeps one parsed meaning per revision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from strongbox import paths
from strongbox.access.authenticated_records import Forged, RecordKeys, open_record
from strongbox.access.policy_engine import CAPABILITIES, Rule
from strongbox.access.token_format import DEFAULT_POLICY, ROOT_POLICY
from strongbox.errors import DependencyDown, Sealed
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

T = TypeVar("T")
M = TypeVar("M", bound=Message)
_log = structlog.get_logger(__name__)
_SELF: Final = (Rule("auth/tokens/self", ("delete", "read", "write")),)


class KeySource(Protocol):
    """Whoever holds the record keys while unsealed (strongbox.rpc.key_client.KeyClient)."""

    @property
    def record_keys(self) -> RecordKeys | None:
        """`None` while sealed."""


class StoredPolicy:
    """A policy as it stands in etcd; compared by identity, so it names one revision of it."""

    __slots__ = ("name", "rules")

    def __init__(self, name: str, rules: tuple[Rule, ...]) -> None:
        self.name, self.rules = name, rules


DEFAULT = StoredPolicy(DEFAULT_POLICY, _SELF)
ROOT = StoredPolicy(ROOT_POLICY, (Rule("*", tuple(sorted(CAPABILITIES - {"deny"}))),))
BUILT_IN: Final = {DEFAULT_POLICY: DEFAULT, ROOT_POLICY: ROOT}


class Lookup:
    """Token and policy records by way of a view. Reading raises `Sealed` without record keys."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._term = 1
        self._promoted: tuple[RecordKeys, RecordKeys] | None = None

    def use_term(self, term: int) -> None:
        """Note the key term in use: that of the seal state, which this decision compares."""
        self._term = term

    def require_keys(self) -> RecordKeys:
        """The record keys; new records are made under the term in use or a newer one.

        Raises `Sealed`; `DependencyDown` when the key of the term in use has not arrived.
        """
        keys = self._source.record_keys
        if keys is None:
            raise Sealed
        return keys if keys.newest >= self._term else self._under_term(keys)

    def require_current(self, term: int) -> None:
        """Raise `DependencyDown` unless an envelope of this key term may still be put.

        One that was wrapped before a rotation could be put where the rewrap has already been, and be lost
        when its term is retired.
        """
        if term < self.require_keys().newest:
            raise DependencyDown("a new key term came into use meanwhile; try again")

    def _under_term(self, keys: RecordKeys) -> RecordKeys:
        """The same keys with `_term` as the newest: the seal state says it before the seal service does."""
        known = self._promoted
        if known is None or known[0] is not keys or known[1].newest != self._term:
            if self._term not in keys.by_term:
                raise DependencyDown("the record key of the term in use has not arrived yet")
            self._promoted = known = keys, RecordKeys(keys.by_term, self._term)
        return known[1]

    def token(self, view: View, token_digest: str) -> storage.TokenRecord | None:
        """A token's record, not to be changed; `None` when absent or forged."""
        return view.parsed(keyspace.token(token_digest), self._parser(_to_token))

    def policy(self, view: View, name: str) -> StoredPolicy | None:
        """A policy by any spelling of its name; `None` when absent or forged."""
        folded = paths.fold_name(name)
        if folded in BUILT_IN:
            return BUILT_IN[folded]
        return view.parsed(keyspace.policy(folded), self._parser(_to_policy))

    def record(self, view: View, key: bytes, kind: type[M]) -> M | None:
        """The authenticated record at a key, not to be changed; `None` when absent or forged."""
        return view.parsed(key, self._parser(kind.FromString))

    def _parser(self, meaning: Callable[[bytes], T]) -> Callable[[bytes, bytes], T | None]:
        keys = self.require_keys()

        def parse(key: bytes, value: bytes) -> T | None:
            try:
                return meaning(open_record(keys, key, value))
            except (Forged, DecodeError) as error:
                _log.error("a forged record grants nothing", key=_shown(key), why=str(error))
                return None

        return parse


def policy_keys(names: tuple[str, ...]) -> tuple[bytes, ...]:
    """The etcd keys of the policies that are not built in."""
    folded = (paths.fold_name(name) for name in names)
    return tuple(keyspace.policy(name) for name in folded if name not in BUILT_IN)


def _to_token(body: bytes) -> storage.TokenRecord:
    return storage.TokenRecord.FromString(body)


def _to_policy(body: bytes) -> StoredPolicy:
    record = storage.PolicyRecord.FromString(body)
    return StoredPolicy(record.name, tuple(Rule(r.path, tuple(r.capabilities)) for r in record.rules))


def _shown(key: bytes) -> str:
    return key.decode("ascii", "replace")
