"""Index entries that lead to a lease, by time, path, accessor and connection. Hints: the record decides.

    due/<bucket>/<id>               one per lease, in the bucket of the second in which the reaper looks at it
    by-path/<policy path> 0 <id>    a zero byte ends the path: no path holds one
    by-accessor/<accessor>/<id>
    by-connection/<folded name>/<id>

An id is a letter and 40 hex digits: `r` a secret that was read, `p` a database credential. No secret.
"""

from __future__ import annotations

from strongbox import paths
from strongbox.store import keyspace

KEPT_MS = 86_400_000  # how long a revoked lease stays readable
BUCKET_MS = 1000  # of the index of what is due
ID_LENGTH = 41
NOW = keyspace.LEASES_DUE + b"%012d" % 0  # the bucket of what is due at once: before all others


def due_bucket(at_ms: int) -> bytes:
    """The bucket (of 1 s) that a moment is in; all earlier ones sort before it."""
    return keyspace.LEASES_DUE + b"%012d" % (at_ms // BUCKET_MS)


def due_key(at_ms: int, name: str) -> bytes:
    """A lease's entry in the index of what is due."""
    return due_bucket(at_ms) + b"/" + name.encode()


def by_path_key(path: str, name: str) -> bytes:
    """Its entry under the policy path."""
    return keyspace.LEASES_BY_PATH + path.encode() + b"\0" + name.encode()


def by_accessor_key(accessor: str, name: str) -> bytes:
    """Its entry under the accessor."""
    return keyspace.LEASES_BY_ACCESSOR + f"{accessor}/{name}".encode()


def by_connection_key(connection: str, name: str) -> bytes:
    """Its entry under the connection, by any spelling of its name."""
    return keyspace.LEASES_BY_CONNECTION + f"{paths.fold_name(connection)}/{name}".encode()


def name_in(key: bytes) -> str:
    """The id that ends an entry of any of these indexes."""
    return key[-ID_LENGTH:].decode("ascii", "replace")
