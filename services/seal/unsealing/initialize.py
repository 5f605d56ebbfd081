"""Init: a new cluster's keys, shares and records, made once in memory and put by one transaction.

The material is made before anything is decided, so deciding again (etcd busy, an answer lost) puts the same
keys; the transaction compares that `seal/config` is absent. Only the answer holds the shares and the root
token: if it is lost, they are lost, and the cluster has to be made again; so nothing retries an init for the
client. The root token's record is made under the clock's time: `cluster/time` begins with it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from services.seal.keys import keyring, root_key
from services.seal.repository import SealState
from strongbox.access.authenticated_records import RecordKeys
from strongbox.access.token_format import new_root_token
from strongbox.crypto.aead import new_key
from strongbox.crypto.envelope import Dek, seal_value, wrap_dek
from strongbox.crypto.shamir import MAX_SHARES, Share, split
from strongbox.errors import AlreadyInitialized, InvalidInput
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from strongbox.store.envelope_records import to_record

DEFAULT_SHARES = 3
DEFAULT_THRESHOLD = 2
_FIRST_TERM = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """A new cluster: what goes into etcd, and what only the caller of init ever sees."""

    puts: dict[bytes, bytes] = field(repr=False)
    shares: tuple[Share, ...] = field(repr=False)
    threshold: int
    root_token: str = field(repr=False)


def require_numbers(shares: int, threshold: int) -> None:
    """Raise InvalidInput unless they make sense: a threshold of 1 lets each owner unseal alone."""
    if not 1 <= shares <= MAX_SHARES:
        raise InvalidInput(f"shares is 1 to {MAX_SHARES}")
    if not 1 <= threshold <= shares:
        raise InvalidInput("threshold is 1 to the number of shares")
    if threshold == 1 and shares > 1:
        raise InvalidInput("a threshold of 1 needs exactly one share")


def conceive(shares: int, threshold: int, now_ms: int) -> Origin:
    """Make a cluster's keys, shares and root token. Raises InvalidInput."""
    require_numbers(shares, threshold)
    # A UUID of version 4: 122 random bits, public; a name, not a secret.
    cluster_id = str(uuid.uuid4())
    unseal_key, root = new_key(), new_key()
    parts = tuple(split(unseal_key, shares, threshold))
    term, kek = keyring.new_term(root, cluster_id, _FIRST_TERM, now_ms)
    record_key = new_key()
    token, token_puts = new_root_token(RecordKeys({_FIRST_TERM: record_key}, _FIRST_TERM), now_ms)
    config = storage.SealConfig(
        cluster_id=cluster_id,
        threshold=threshold,
        share_digests=[root_key.share_digest(cluster_id, share) for share in parts],
        root_key=root_key.seal_root(unseal_key, root, cluster_id),
        root_key_check=root_key.check_value(root, cluster_id),
        created_ms=now_ms,
    )
    record_keys = storage.RecordKeyring(keys=[keyring.wrap_record_key(kek, _FIRST_TERM, record_key)])
    puts = {
        keyspace.SEAL_CONFIG: config.SerializeToString(),
        keyspace.SEAL_KEYRING: storage.Keyring(terms=[term], current=_FIRST_TERM).SerializeToString(),
        keyspace.SEAL_RECORD_KEY: record_keys.SerializeToString(),
        keyspace.SEAL_STATE: SealState(is_sealed=True, generation=1).encode(),
        keyspace.CLUSTER_ID: cluster_id.encode(),
        keyspace.CLUSTER_TIME: b"%020d" % now_ms,
        keyspace.AUDIT_KEY: _audit_key(kek),
        **token_puts,
    }
    return Origin(puts, parts, threshold, token)


def require_none(view: View) -> None:
    """Raises AlreadyInitialized when there is a cluster."""
    if view.get(keyspace.SEAL_CONFIG).value is not None:
        raise AlreadyInitialized


def found(view: View, origin: Origin) -> None:
    """Put the new cluster, unless there is one already. Raises AlreadyInitialized."""
    require_none(view)
    for key, value in origin.puts.items():
        view.put(key, value)


def _audit_key(kek: bytes) -> bytes:
    """The audit chain's HMAC key, as an envelope that only an audit certificate gets opened."""
    dek = Dek.fresh()
    wrapped = wrap_dek(keyring.purpose_kek(kek, "audit"), "audit", _FIRST_TERM, dek)
    envelope = seal_value(dek, wrapped, "audit", "audit/key", 1, new_key())
    return to_record(envelope).SerializeToString()
