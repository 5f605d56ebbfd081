"""AppRoles: how a machine gets its token, by a role id (its name) and a secret id (its password). Pure.

Rules:
* A role id is a random UUID; it is no secret. A role keeps it for life; one that is deleted and made again
  gets another, so old secret ids do not fit.
* `auth/approles/<name>/secret-id` is a path of its own: whoever hands out secret ids need not be allowed to
  change roles.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from services.auth import policy_delegation
from services.auth.logins import lockouts
from services.auth.named_records import Named
from strongbox.access.guard import Caller
from strongbox.access.record_reader import Lookup
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

KIND = "approles"
Record = storage.AppRoleRecord
_ROLE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class Found(NamedTuple):
    """A role and the etcd revision at which it was last written."""

    record: Record
    revision: int


def path_of(name: str) -> str:
    """What policies call an AppRole."""
    return f"auth/approles/{name}"


def secret_id_path(name: str) -> str:
    """What policies call making and ending its secret ids."""
    return f"auth/approles/{name}/secret-id"


class AppRoles:
    """Decisions about AppRoles and secret ids, after the guard's."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.records = Named(lookup, keyspace.APPROLES, Record, "approle")

    def write(self, view: View, caller: Caller, wanted: Record, fresh_role_id: str) -> Record:
        """Make or replace a role, which keeps its role id. Raises `InvalidInput`, `PermissionDenied`."""
        known = self.records.writable(view, wanted.name)
        path = path_of(wanted.name)
        policy_delegation.require_may_give(caller, path, wanted.policies)
        if known is not None:
            policy_delegation.require_may_give(caller, path, known.policies)
        record = Record()
        record.CopyFrom(wanted)
        del record.policies[:]
        record.policies.extend(policy_delegation.spelt(self._lookup, view, wanted.policies))
        record.role_id = known.role_id if known is not None else fresh_role_id
        self.records.put(view, record)
        view.put(_role_id_key(record.role_id), record.name.encode())
        return record

    def read(self, view: View, name: str) -> Found:
        """Raises `NotFound`."""
        record = self.records.require(view, name)
        return Found(record, view.get(self.records.key(name)).mod_revision)

    def delete(self, view: View, name: str) -> None:
        """Remove a role, there or not; its secret ids are refused from then on and go when they expire."""
        known = self.records.delete(view, name)
        if known is not None:
            view.delete(_role_id_key(known.role_id))
        lockouts.clear(view, lockouts.failure_key(KIND, name))

    def role_of(self, view: View, role_id: str) -> Record | None:
        """The role that a role id names."""
        if not _ROLE_ID.match(role_id):
            return None
        name = view.get(_role_id_key(role_id)).value
        role = self.records.find(view, name.decode("ascii", "replace")) if name is not None else None
        return role if role is not None and role.role_id == role_id else None


def _role_id_key(role_id: str) -> bytes:
    return keyspace.ROLE_IDS + role_id.encode()
