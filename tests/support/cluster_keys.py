"""Every key of a running cluster, opened from etcd with a threshold of shares: what must be found nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from services.seal.keys.keyring import open_keyring, purpose_kek, term_kek
from services.seal.keys.root_key import open_root
from strongbox.crypto.envelope import open_value, unwrap_dek
from strongbox.crypto.shamir import Share
from strongbox.storage.v1 import envelope_pb2
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.envelope_records import from_record
from tests.support.cluster import Cluster
from tests.support.store import Etcd


def keys_of(cluster: Cluster, shares: Sequence[Share]) -> dict[str, bytes]:
    """The root key, each term's KEK and record key, the audit chain's key and the data key it is under."""
    with Etcd(cluster) as etcd:
        rows = etcd.rows(keyspace.ROOT)
    config = storage.SealConfig.FromString(rows[keyspace.SEAL_CONFIG])
    root = open_root(config, shares)
    found = {"root key": root}
    stored = storage.Keyring.FromString(rows[keyspace.SEAL_KEYRING])
    records = storage.RecordKeyring.FromString(rows[keyspace.SEAL_RECORD_KEY])
    opened = open_keyring(root, config.cluster_id, stored, records).record_keys
    found |= {f"record key {term}": key for term, key in opened.by_term.items()}
    for term in stored.terms:
        found[f"KEK {term.term}"] = term_kek(root, config.cluster_id, term)
    envelope = from_record(envelope_pb2.Envelope.FromString(rows[keyspace.AUDIT_KEY]))
    dek = unwrap_dek(purpose_kek(found[f"KEK {envelope.term}"], "audit"), "audit", envelope.wrapped)
    return found | {"audit data key": dek, "audit key": open_value(dek, envelope, "audit", "audit/key", 1)}
