"""What kv keeps under key terms: the newest version's envelope in each head, then the older versions'.

Heads come first: a write moves the envelope that was newest out of the head, and it must not slip behind the
pass. The HMACs of remembered operations stay under the term they were made under (the request is not kept);
one whose term is retired is known by its idempotency key alone (`idempotency`).
"""

from __future__ import annotations

from collections.abc import Sequence

from services.kv.idempotency import remembered
from strongbox.process.rewrap_kinds import Keys, Kind, renew_envelopes, rewrapped
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.client import KV


async def renew_heads(rows: Sequence[KV], keys: Keys) -> dict[bytes, bytes]:
    """Rewraps the envelope in each head; nothing else of it changes."""
    heads = {row.key: storage.SecretHead.FromString(row.value) for row in rows}
    revisions = {row.key: row.mod_revision for row in rows}
    inside = {key: head.envelope for key, head in heads.items() if head.HasField("envelope")}
    renewed = {}
    for key, envelope in (await rewrapped(inside, keys)).items():
        head = heads[key]
        head.envelope.CopyFrom(envelope)
        # The newest operation's revision is the record's own, which changes now: it is written down.
        operations = remembered(head.operations, None, revisions[key])
        del head.operations[:]
        head.operations.extend(operations)
        renewed[key] = head.SerializeToString(deterministic=True)
    return renewed


KINDS = (
    Kind(keyspace.KV_HEADS, renew_heads),
    *(Kind(prefix, renew_envelopes) for prefix in keyspace.ENVELOPES["kv"]),
)
