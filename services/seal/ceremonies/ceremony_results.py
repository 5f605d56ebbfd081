"""What a completed ceremony makes: new key shares for the same root key, or a root token.

Before anything is made, a threshold of the present shares must open the root key (`open_root`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.seal.keys import root_key
from strongbox.access.authenticated_records import RecordKeys
from strongbox.access.token_format import digest, new_token, root_record, token_puts
from strongbox.crypto.aead import Bytes, is_equal, mac, new_key
from strongbox.crypto.errors import IntegrityError
from strongbox.crypto.shamir import Share, split
from strongbox.errors import DependencyDown
from strongbox.storage.v1 import seal_records_pb2 as storage

_PENDING_LABEL = "rekey pending v1"


class NewShares(NamedTuple):
    """New shares, the configuration that they open, and its HMAC."""

    shares: tuple[Share, ...]
    config: storage.SealConfig
    mac: bytes

    def __repr__(self) -> str:
        return "NewShares(…)"


def make_shares(
    config: storage.SealConfig, present: Sequence[Share], attempt: bytes, shares: int, threshold: int
) -> NewShares:
    """New shares of a new unseal key over the same root key.

    Raises IntegrityError when the present shares do not open it, or the new ones would not.
    """
    root = root_key.open_root(config, present)
    unseal_key = new_key()
    parts = tuple(split(unseal_key, shares, threshold))
    pending = storage.SealConfig(
        cluster_id=config.cluster_id,
        threshold=threshold,
        share_digests=[root_key.share_digest(config.cluster_id, part) for part in parts],
        root_key=root_key.seal_root(unseal_key, root, config.cluster_id),
        root_key_check=config.root_key_check,
        created_ms=config.created_ms,
    )
    # Their owners cannot try them before the old ones are replaced: so they are tried here.
    if not is_equal(root_key.open_root(pending, parts[-threshold:]), root):
        raise IntegrityError
    return NewShares(parts, pending, pending_mac(root, attempt, pending))


def pending_mac(root: Bytes, attempt: bytes, pending: storage.SealConfig) -> bytes:
    """32 bytes that only the root key makes; the attempt is in them, so no older record can be put back."""
    return mac(root, _PENDING_LABEL, attempt, pending.SerializeToString(deterministic=True))


class RootToken:
    """A root token that is being made; deciding again puts the same token."""

    def __init__(self, keys: RecordKeys) -> None:
        self.token = new_token()
        self._keys = keys

    def puts(self, term: int, now_ms: int) -> Mapping[bytes, bytes]:
        """Its etcd records. Raises DependencyDown when this replica does not know the term in use yet."""
        if self._keys.newest < term:
            raise DependencyDown("the term in use is not known here yet")
        return token_puts(self._keys, digest(self.token), root_record(now_ms))

    def __repr__(self) -> str:
        return "RootToken(…)"
