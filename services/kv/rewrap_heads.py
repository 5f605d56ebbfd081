"""What kv keeps under key terms: the MAC of each head, and the versions' envelopes.

The HMACs of remembered operations stay under the term they were made under, since the request is not kept; an
operation whose term is retired is known by its idempotency key alone (`idempotency`). A head that is junk or
forged is logged and left as it is; the others are renewed all the same.
"""

from __future__ import annotations

from services.kv.idempotency import remembered
from strongbox.rewrap.rewrap_kinds import Kind, renew_envelopes, renew_records
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace


def settled(body: bytes, revision: int) -> bytes:
    """Write down the newest operation's revision: it is the record's own, which rewrapping changes."""
    head = storage.SecretHead.FromString(body)
    operations = remembered(head.operations, None, revision)
    del head.operations[:]
    head.operations.extend(operations)
    return head.SerializeToString(deterministic=True)


KINDS = (
    *(Kind(prefix, renew_records(settled=settled)) for prefix in keyspace.AUTHENTICATED["kv"]),
    *(Kind(prefix, renew_envelopes) for prefix in keyspace.ENVELOPES["kv"]),
)
