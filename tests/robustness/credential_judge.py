"""Are PostgreSQL's roles and etcd's leases as they have to be? Violations are sentences, as in `validate`.

* No role that bears the cluster's id is without a lease, an intent or a pending revocation.
* No lease is REVOKED while its role lives.
* When nothing moves any more: nothing is pending, no intent is open, each ACTIVE lease has its role.
* Nothing had to be mended: the chain tells of no orphan, and of no lease whose role had vanished.

At any time: leases are read before and after the roles. A role whose lease was REVOKED before, or is unknown
after, is a violation: an intent is written before its role, and REVOKED after it is gone.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from services.lease import credential_lease
from strongbox.storage.v1.auth_records_pb2 import AuthenticatedRecord
from strongbox.store import keyspace
from tests.robustness.postgres import Postgres
from tests.support.etcd_door import EtcdDoor

Leases = Mapping[str, credential_lease.Record]
_COMMENT = re.compile(r"strongbox:([^:]+):(.+)")
_MENDED = ("DropOrphanRole", "CloseLeaseOfVanishedRole")
_PAGE = 2000


class Seen(NamedTuple):
    """Leases by id as they were before and after the roles (comments by name) were read."""

    cluster_id: str
    before: Leases
    roles: Mapping[str, str]
    after: Leases


def look(etcd: EtcdDoor, server: Postgres) -> Seen:
    """What there is. Raises grpc.RpcError, psycopg2.Error."""
    (row,) = etcd.range(keyspace.CLUSTER_ID).kvs
    return Seen(row.value.decode(), leases_in(etcd), server.roles(), leases_in(etcd))


def leases_in(etcd: EtcdDoor) -> dict[str, credential_lease.Record]:
    """Credentials' leases by id, past every service (so their MACs are not looked at)."""
    start, end, found = (
        keyspace.GRANTS,
        keyspace.prefix_end(keyspace.GRANTS),
        dict[str, credential_lease.Record](),
    )
    while rows := etcd.range(start, end, limit=_PAGE).kvs:
        for row in rows:
            body = AuthenticatedRecord.FromString(row.value).body
            found[row.key.removeprefix(keyspace.GRANTS).decode()] = credential_lease.Record.FromString(body)
        start = rows[-1].key + b"\0"
    return found


def violations(seen: Seen) -> Iterator[str]:
    """What must not be at any time."""
    for name, lease in _ours(seen).items():
        if lease not in seen.after:
            yield f"credential: the role {name} has no lease"
        elif lease in seen.before and seen.before[lease].state == credential_lease.REVOKED:
            yield f"credential: the role {name} lives, and its lease {lease} is REVOKED"


def unsettled(seen: Seen) -> Iterator[str]:
    """What must not be once nothing moves any more: ends that have not come, leases without a role."""
    living = set(_ours(seen).values())
    for lease, record in seen.after.items():
        if record.state == credential_lease.ACTIVE and lease not in living:
            yield f"credential: the lease {lease} is ACTIVE and has no role"
        elif record.state in (credential_lease.INTENT, credential_lease.PENDING) or _is_unseen(record):
            tried = f"{record.attempts} attempts ({record.last_error})"
            yield f"credential: the lease {lease} is {credential_lease.state_of(record, 0)} after {tried}"


def mended(lines: Iterable[bytes], asked: str = "") -> Iterator[str]:
    """What the reconciler told the chain; `asked`: the role that it was given to find."""
    for line in lines:
        entry = json.loads(line)
        if entry["op"] in _MENDED and entry["path"] != f"dynamic-postgres/{asked}":
            yield f"credential: {entry['op']} of {entry['path']} was needed"


def settle(look: Callable[[], Seen], seconds: float) -> list[str]:
    """All violations, once everything has come to an end, or `seconds` later."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        left = list(unsettled(seen))
        if not left or time.monotonic() > deadline:
            return [*violations(seen), *left]
        time.sleep(0.2)


def _is_unseen(record: credential_lease.Record) -> bool:
    return record.state == credential_lease.ABANDONED and not record.seen_absent


def _ours(seen: Seen) -> dict[str, str]:
    """Lease ids by role, of the roles that bear the cluster's id."""
    found = {name: _COMMENT.fullmatch(comment) for name, comment in seen.roles.items()}
    return {name: told[2] for name, told in found.items() if told and told[1] == seen.cluster_id}
