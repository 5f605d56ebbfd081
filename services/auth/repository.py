"""Tokens and policies in etcd: which keys hold them, and how these are changed. All through a view.

    tokens/<digest>              AuthenticatedRecord of a TokenRecord
    accessors/<accessor>         the digest; a hint, believed only when the record found names the accessor
    children/<parent>/<accessor> the child's digest, so that revoking finds the children
    due/<shard>/<minute>/<digest>  what the tidy duty has to do, and when: `expire`, `children` or `marker`
    revoked/<digest>             the accessor of a token that is gone: the lease service revokes what it held
    policies/<folded name>       AuthenticatedRecord of a PolicyRecord
    counts/<group>/<x>           how many tokens of a group live (services.auth.quotas)

The index of what is due has 256 shards, by the first two digits of the digest: etcd walks all keys of a
range that it is asked about, whatever the limit, so a million tokens that expire in one minute are never
walked at once.

A token that is revoked leaves its marker for `MARKER_MS`; its children are dead at once, because every use of
them compares the parent's record, and are cleared away by the tidy duty.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from services.auth import quotas
from services.auth.quotas import Quotas
from strongbox import paths
from strongbox.access.authenticated_records import seal_record
from strongbox.access.policy_engine import Rule
from strongbox.access.record_reader import Lookup
from strongbox.access.token_format import token_puts
from strongbox.errors import Internal, TooLarge
from strongbox.lease_records.counters import Tally
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from strongbox.store.space.admission import Effect

MINUTE_MS = 60_000
MARKER_MS = 33 * 86_400_000  # longer than any token's life: no lease of it is left
MAX_POLICY_BYTES = 64 << 10
EXPIRE, FIND_CHILDREN, DROP_MARKER = b"expire", b"children", b"marker"
_log = structlog.get_logger(__name__)


def due_key(at_ms: int, digest: str) -> bytes:
    """The tidy duty's entry for a token, in the minute that `at_ms` (milliseconds since the epoch) is in."""
    return due_until(keyspace.TOKENS_DUE, digest[:2], at_ms) + f"/{digest}".encode()


def due_until(index: bytes, shard: str, now_ms: int) -> bytes:
    """Where the minute of `now_ms` begins in a shard of an index: all that is due sorts before."""
    return index + f"{shard}/{now_ms // MINUTE_MS:010d}".encode()


def digest_of_due(key: bytes) -> str:
    """The digest that an entry of the due index names."""
    return key.rsplit(b"/", 1)[1].decode()


class Repository:
    """The records, read and written through a view."""

    def __init__(self, lookup: Lookup, limits: Quotas | None = None) -> None:
        self.lookup, self._limits = lookup, limits or Quotas()

    def find(self, view: View, accessor: str) -> tuple[str, storage.TokenRecord] | None:
        """The digest and record of the token with this accessor.

        Raises `Internal` when the accessor leads to another token: this one must not be taken for gone.
        """
        told = view.get(keyspace.accessor(accessor)).value
        if told is None:
            return None
        digest = told.decode("ascii", "replace")
        record = self.lookup.token(view, digest)
        if record is not None and record.accessor != accessor:
            _log.error("an accessor leads to another's token", accessor=accessor)
            raise Internal
        return (digest, record) if record is not None else None

    def add_token(self, view: View, digest: str, record: storage.TokenRecord) -> None:
        """Write a new token. Raises `QuotaExceeded` when its group is full."""
        quotas.take(view, record.quota, digest, self._limits.tokens, "tokens of this caller")
        self.put_token(view, digest, record)

    def put_token(self, view: View, digest: str, record: storage.TokenRecord) -> None:
        """Write a token's record and the index entries that lead to it."""
        for key, value in token_puts(self.lookup.require_keys(), digest, record).items():
            view.put(key, value)
        if record.parent:
            view.put(keyspace.child(record.parent, record.accessor), digest.encode())
        if record.expires_ms:
            view.put(due_key(record.expires_ms, digest), EXPIRE)

    def rewrite_token(self, view: View, digest: str, record: storage.TokenRecord) -> None:
        """Write the record of an existing token, whose expiry does not change."""
        view.means(Effect.NEUTRAL)
        key = keyspace.token(digest)
        body = record.SerializeToString(deterministic=True)
        view.put(key, seal_record(self.lookup.require_keys(), key, body))

    def move_expiry(self, view: View, digest: str, record: storage.TokenRecord, expires_ms: int) -> None:
        """Write the token again with another expiry. `record` itself is not changed."""
        view.means(Effect.NEUTRAL)  # each new key replaces one
        view.delete(due_key(record.expires_ms, digest))
        moved = storage.TokenRecord()
        moved.CopyFrom(record)
        moved.expires_ms = expires_ms
        self.put_token(view, digest, moved)

    def revoke(self, view: View, digest: str, record: storage.TokenRecord, tally: Tally) -> None:
        """Delete a token; a marker tells the lease service, an entry due at once the tidy duty."""
        view.means(Effect.SAFETY)
        self.drop_token(view, digest, record, tally)
        view.put(keyspace.REVOKED + digest.encode(), record.accessor.encode())
        view.put(due_key(0, digest), FIND_CHILDREN)

    def drop_token(self, view: View, digest: str, record: storage.TokenRecord, tally: Tally) -> None:
        """Delete a token's record and its index entries; its counter moves when `tally` is settled."""
        quotas.give_back(tally, record.quota, digest)
        view.delete(keyspace.token(digest))
        view.delete(keyspace.accessor(record.accessor))
        if record.parent:
            view.delete(keyspace.child(record.parent, record.accessor))
        if record.expires_ms:
            view.delete(due_key(record.expires_ms, digest))

    def put_policy(self, view: View, name: str, rules: Sequence[Rule]) -> None:
        """Write a policy; replacing one is neutral to etcd's space. Raises `TooLarge` above 64 KiB."""
        stored = [storage.StoredRule(path=rule.path, capabilities=rule.capabilities) for rule in rules]
        body = storage.PolicyRecord(name=name, rules=stored).SerializeToString()
        if len(body) > MAX_POLICY_BYTES:
            raise TooLarge(f"a policy has at most {MAX_POLICY_BYTES} bytes")
        key = keyspace.policy(paths.fold_name(name))
        if view.get(key).value is not None:
            view.means(Effect.NEUTRAL)  # a stricter policy is often longer, and must not be refused
        view.put(key, seal_record(self.lookup.require_keys(), key, body))
