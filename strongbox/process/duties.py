"""The duties there are, and when one of them is late.

A duty is done by one replica of its service at a time (strongbox.store.duties.election). Its work calls
`term.progress()` whenever a pass was done under the fence, also when nothing was due; each process tells in
its session key when each of its duties last did so (`presence`), and seal derives health from that.

* `late_after_s`: seconds without progress, not counting those in which the cluster is sealed or etcd does not
  answer. Each is several times what a pass takes when much is due, and more than any failover.
* `for_safety`: a node is not ready while such a duty is late, since what clients are promised then no longer
  holds: credentials end (reaper), also those of revoked tokens (follower); the outbox of the audit trail is
  chained and trimmed, and the cluster's time goes on (audit). While another duty is late, only old data stays
  longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Bounds(NamedTuple):
    """How one duty is judged."""

    service: str
    late_after_s: float
    for_safety: bool = False


# The reconciler's passes are `STRONGBOX_RECONCILE_EVERY_S` apart (60 s): set that well below its bound.
DUTIES: Mapping[str, Bounds] = {
    "audit": Bounds("audit", 60.0, for_safety=True),
    "reaper": Bounds("lease", 60.0, for_safety=True),
    "follower": Bounds("lease", 60.0, for_safety=True),
    "reconciler": Bounds("lease", 900.0),
    "tidy": Bounds("auth", 300.0),
    "purge": Bounds("kv", 300.0),
    "terms": Bounds("seal", 120.0),
    **{f"rewrap-{service}": Bounds(service, 300.0) for service in ("kv", "auth", "lease", "audit")},
}
