"""Secret ids: the password of a machine. Pure functions of a view.

Rules:
* A secret id is `sbs.` and 32 random bytes. It is in one answer and nowhere else: its record stands under its
  digest (as a token's, strongbox.access.token_format), so no secret is compared, and no comparison can be
  timed.
* It fits the role whose role id it names. It expires (32 days unless the role says otherwise), may have a
  limited number of uses, taken in the transaction of the login, and may be bound to networks. What is asked
  for one secret id can only narrow what the role says.
* At each login the role's bounds apply as they are then, the secret id's as they were when it was made.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import NamedTuple

from services.auth import quotas
from services.auth.logins.bound_cidrs import is_from, require_inside
from services.auth.quotas import Quotas
from services.auth.repository import digest_of_due, due_until
from strongbox.access import token_format as access
from strongbox.access.authenticated_records import seal_record
from strongbox.access.record_reader import Lookup
from strongbox.errors import InvalidInput
from strongbox.lease_records.counters import Tally
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

DEFAULT_TTL_S = 32 * 86_400
MAX_TTL_S = 366 * 86_400
Role = storage.AppRoleRecord
_SECRET_ID = re.compile(r"sbs\.[A-Za-z0-9_-]{43}\Z")
_LABEL = b"strongbox secret id v1\0"


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is asked for one secret id; `ttl_s` and `num_uses` 0: as the role says."""

    ttl_s: int = 0
    num_uses: int = 0
    cidrs: tuple[str, ...] = ()


class FreshId(NamedTuple):
    """The randomness of one secret id, made before it is decided."""

    secret_id: str
    accessor: str

    @classmethod
    def make(cls) -> FreshId:
        return cls("sbs." + secrets.token_urlsafe(32), access.new_accessor())


class Made(NamedTuple):
    """A secret id's record, and when (milliseconds) it was made."""

    record: storage.SecretIdRecord
    now_ms: int


def digest(secret_id: str) -> str:
    """64 hex digits: SHA-256 over a domain label and the secret id; 256 random bits need no slow hash."""
    return hashlib.sha256(_LABEL + secret_id.encode("utf-8", "surrogatepass")).hexdigest()


def due_key(expires_ms: int, secret_digest: str) -> bytes:
    """The tidy duty's entry for a secret id: in one of 256 shards, by the minute."""
    return due_until(keyspace.SECRET_IDS_DUE, secret_digest[:2], expires_ms) + f"/{secret_digest}".encode()


class SecretIds:
    """Decisions about secret ids, after the guard's."""

    def __init__(self, lookup: Lookup, limits: Quotas | None = None) -> None:
        self._lookup, self._limits = lookup, limits or Quotas()

    def make(self, view: View, role: Role, asked: Narrowed, fresh: FreshId) -> Made:
        """Make a secret id. Raises `InvalidInput` for what would widen the role, `QuotaExceeded`."""
        ttl_s = role.secret_id_ttl_s or DEFAULT_TTL_S
        if asked.ttl_s > ttl_s or 0 < role.secret_id_num_uses < asked.num_uses:
            raise InvalidInput("a secret id has at most the ttl and the uses that its role gives")
        require_inside(asked.cidrs, role.bound_cidrs)
        record = storage.SecretIdRecord(
            role_id=role.role_id,
            accessor=fresh.accessor,
            expires_ms=view.now_ms + (asked.ttl_s or ttl_s) * 1000,
            num_uses=asked.num_uses or role.secret_id_num_uses,
            bound_cidrs=asked.cidrs,
            quota=quotas.secret_id_group(role.role_id),
        )
        name_digest = digest(fresh.secret_id)
        quotas.take(view, record.quota, name_digest, self._limits.secret_ids, "secret ids of this role")
        self._put(view, name_digest, record)
        view.put(_by_role_key(role.role_id, fresh.accessor), name_digest.encode())
        view.put(due_key(record.expires_ms, name_digest), b"")
        return Made(record, view.now_ms)

    def revoke(self, view: View, role: Role, accessor: str) -> None:
        """End a secret id; one that is not there is ended already."""
        if access.is_accessor(accessor):
            told = view.get(_by_role_key(role.role_id, accessor)).value
            name_digest = (told or b"").decode("ascii", "replace")
            record = self._find(view, name_digest) if name_digest else None
            if record is not None and (record.role_id, record.accessor) == (role.role_id, accessor):
                self._drop_one(view, name_digest, record)

    def use(self, view: View, role: Role, secret_id: str, client: str) -> storage.SecretIdRecord | None:
        """The secret id's record if it allows this login, with one use taken; else None."""
        name_digest = digest(secret_id)
        record = self._find(view, name_digest) if _SECRET_ID.match(secret_id) else None
        if record is None or record.role_id != role.role_id or view.now_ms >= record.expires_ms:
            return None
        if not is_from(client, role.bound_cidrs) or not is_from(client, record.bound_cidrs):
            return None
        view.before(record.expires_ms)
        if record.num_uses and record.uses_spent + 1 >= record.num_uses:
            self._drop_one(view, name_digest, record)
        elif record.num_uses:
            used = storage.SecretIdRecord()
            used.CopyFrom(record)
            used.uses_spent += 1
            self._put(view, name_digest, used)
        return record

    def expire(self, view: View, key: bytes, tally: Tally) -> None:
        """Settle a due entry: delete the secret id if expired, and the entry if it is outdated."""
        name_digest = digest_of_due(key)
        record = self._find(view, name_digest)
        if record is not None and record.expires_ms <= view.now_ms:
            self._drop(view, name_digest, record, tally)
        if record is None or due_key(record.expires_ms, name_digest) != key:
            view.delete(key)

    def _drop_one(self, view: View, name_digest: str, record: storage.SecretIdRecord) -> None:
        tally = Tally()
        self._drop(view, name_digest, record, tally)
        tally.settle(view)

    def _drop(self, view: View, name_digest: str, record: storage.SecretIdRecord, tally: Tally) -> None:
        """Delete a secret id, its index entries, and its count."""
        quotas.give_back(tally, record.quota, name_digest)
        view.delete(keyspace.SECRET_IDS + name_digest.encode())
        view.delete(_by_role_key(record.role_id, record.accessor))
        view.delete(due_key(record.expires_ms, name_digest))

    def _find(self, view: View, name_digest: str) -> storage.SecretIdRecord | None:
        key = keyspace.SECRET_IDS + name_digest.encode()
        return self._lookup.record(view, key, storage.SecretIdRecord)

    def _put(self, view: View, name_digest: str, record: storage.SecretIdRecord) -> None:
        key = keyspace.SECRET_IDS + name_digest.encode()
        body = record.SerializeToString(deterministic=True)
        view.put(key, seal_record(self._lookup.require_keys(), key, body))


def _by_role_key(role_id: str, accessor: str) -> bytes:
    return keyspace.SECRET_IDS_BY_ROLE + f"{role_id}/{accessor}".encode()
