"""The root key: sealed by the unseal key, recognised by its check value. And how key shares are recognised.

    unseal key (32 random bytes, split into shares) ──AES-256-GCM──▶ root key record
    root key   (32 random bytes)                    ──HMAC─────────▶ key check value

* The root key is not derived from the unseal key, so new shares (a rekey) leave everything below untouched.
* The unseal key seals only one plaintext: GCM's limit of seals per key does not matter.
* The check value is needed besides GCM's tag: GCM does not commit to its key (one ciphertext can be made to
  open under two keys), and a root key that a peer hands over comes with no record to open. HMAC-SHA256
  under the root key commits to it, and tells nothing of it.
* A share's digest is a bare SHA-256: the share is 256 uniform bits, so there is nothing to guess, and no salt
  or slow hash would add anything. Label, cluster, index and length prefixes keep it from being taken for any
  other digest.
* The cluster's id is in everything: a record or share of another cluster never fits here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from strongbox.crypto.aead import Aead, Box, Bytes, canonical_aad, derive, is_equal, mac
from strongbox.crypto.errors import IntegrityError
from strongbox.crypto.shamir import Share, combine
from strongbox.storage.v1 import seal_records_pb2 as storage

_ROOT_LABEL = "root key v1"
_CHECK_LABEL = "root key check v1"
_SHARE_LABEL = "key share digest v1"
_KEYRING_LABEL = "keyring v1"


def share_digest(cluster_id: str, share: Share) -> bytes:
    """32 bytes that recognise a share and tell nothing of it."""
    return hashlib.sha256(canonical_aad(_SHARE_LABEL, cluster_id, share.index, share.data)).digest()


def is_share_of(config: storage.SealConfig, share: Share) -> bool:
    """Whether `share` is one of this cluster's."""
    if share.index > len(config.share_digests):
        return False
    # Constant time, though digests are public: the comparison must not become an oracle if that ever changes.
    return is_equal(share_digest(config.cluster_id, share), config.share_digests[share.index - 1])


def seal_root(unseal_key: bytes, root: Bytes, cluster_id: str) -> storage.SealedBox:
    """The root key as it is stored."""
    return to_box(Aead(unseal_key).seal(root, canonical_aad(_ROOT_LABEL, cluster_id)))


def check_value(root: Bytes, cluster_id: str) -> bytes:
    """32 bytes by which a root key is recognised."""
    return mac(root, _CHECK_LABEL, cluster_id)


def require_root(config: storage.SealConfig, root: bytes) -> bytes:
    """`root` if it is this cluster's root key. Raises IntegrityError."""
    if not is_equal(check_value(root, config.cluster_id), config.root_key_check):
        raise IntegrityError
    return root


def open_root(config: storage.SealConfig, shares: Sequence[Share]) -> bytes:
    """The root key by a threshold of valid shares. Raises IntegrityError, ShareError."""
    cipher = Aead(combine(shares))
    try:
        root = cipher.open(from_box(config.root_key), canonical_aad(_ROOT_LABEL, config.cluster_id))
    finally:
        cipher.wipe()
    return require_root(config, root)


def keyring_cipher(root: Bytes) -> Aead:
    """The cipher of the keyring, with a derived key, so that the root key itself encrypts nothing."""
    return Aead(derive(root, _KEYRING_LABEL))


def to_box(box: Box) -> storage.SealedBox:
    """A box as it is stored."""
    return storage.SealedBox(nonce=box.nonce, ciphertext=box.ciphertext, tag=box.tag)


def from_box(box: storage.SealedBox) -> Box:
    """A stored box, to be opened."""
    return Box(box.nonce, box.ciphertext, box.tag)
