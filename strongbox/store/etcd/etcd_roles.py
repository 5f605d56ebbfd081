"""Who may touch which keys of etcd: one table, from which etcd's users and roles are made.

* A service is known to etcd by its certificate: common name `kv` is user `kv`, with role `kv`. No passwords.
* Rights follow who owns a prefix, so a new key under an owner's prefix needs no new line here.
* A compare needs the right to read. Nobody may write without reading: that would allow deleting unseen keys.
* What everybody reads is what every decision compares: tokens and policies, the seal state, the time, who is
  there, and how far the audit trail got.
* `operator` (people) and `upkeep` (compaction, defragmentation, disarming alarms) have etcd's own role
  `root`: etcd asks for no less. The user `root` exists because etcd requires it; no certificate names it.
* Everything else (gateway, etcd's members) has no user, and so reads and writes nothing.

Any of these certificates may grant an etcd lease, and revoke one that has no keys; one with keys needs the
right to write those keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongbox.config import SERVICES
from strongbox.store import keyspace
from strongbox.store.keyspace import ROOT, prefix_end

SUPERUSERS = ("root", "operator", "upkeep")

_EVERYBODY_READS = (
    ROOT + b"cluster/",
    ROOT + b"election/",
    ROOT + b"auth/access/",
    keyspace.SEAL_STATE,
    keyspace.AUDIT_MARK,
    keyspace.AUDIT_BACKLOG,
)
# What a service reads beside what it writes: seal learns when nothing uses an old key term any more.
_READS: dict[str, tuple[bytes, ...]] = {"seal": tuple(keyspace.REWRAPS.values())}
_EVERYBODY_WRITES = (keyspace.AUDIT_SLOTS,)
_OWN = ("audit/outbox/{}/", "audit/producers/{}/", "election/{}/", "cluster/nodes/{}/")
# What a service writes beside the four above.
_WRITES: dict[str, tuple[bytes, ...]] = {
    # The last five at init (docs/adr/0004): root token, audit chain's key, the cluster's name and time.
    # A root token by generate-root as well.
    "seal": (
        ROOT + b"seal/",
        keyspace.TOKENS,
        keyspace.ACCESSORS,
        keyspace.AUDIT_KEY,
        keyspace.CLUSTER_ID,
        keyspace.CLUSTER_TIME,
    ),
    # A read lease, its index entries and its counters are written by the read that takes it.
    "kv": (
        ROOT + b"kv/",
        keyspace.READ_LEASES,
        keyspace.LEASES_DUE,
        keyspace.LEASES_BY_PATH,
        keyspace.LEASES_BY_ACCESSOR,
        keyspace.LEASE_COUNTS,
    ),
    "auth": (ROOT + b"auth/",),
    "lease": (ROOT + b"lease/",),
    "audit": (ROOT + b"audit/", keyspace.CLUSTER_TIME),
}


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """Keys in [key, end) (`end` empty: `key` alone) to be read, or read and written."""

    key: bytes
    end: bytes
    writes: bool


def permissions_of(service: str) -> frozenset[Permission]:
    """Everything `service` may do. Raises KeyError for anybody else."""
    own = tuple(ROOT + name.format(service).encode() for name in _OWN)
    written = {*_WRITES[service], *own, *_EVERYBODY_WRITES}
    # Etcd keeps one permission for each range: written is also read.
    read = {*_EVERYBODY_READS, *_READS.get(service, ())} - written
    return frozenset(
        Permission(key, prefix_end(key) if key.endswith(b"/") else b"", key in written)
        for key in written | read
    )


ROLES: dict[str, frozenset[Permission]] = {service: permissions_of(service) for service in SERVICES}
