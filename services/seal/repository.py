"""Seal's records in etcd, read and written through a view.

seal/state      sealed:<generation>[:<term>] | unsealed:<generation>[:<term>]; sealing and unsealing count the
                generation up. From term 2 on the key term in use stands there too: every decision compares
                this key, so from the moment a term is in use nothing new is made under an older one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from strongbox.errors import NotInitialized
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class SealState:
    """Whether the cluster is meant to be sealed, how often that has changed, and the key term in use."""

    is_sealed: bool
    generation: int
    term: int = 1

    @classmethod
    def parse(cls, value: bytes | None) -> SealState | None:
        """What stands at seal/state; None before init. Raises ValueError for what no version wrote."""
        if value is None:
            return None
        word, _, rest = value.partition(b":")
        numbers = rest.split(b":")
        if word not in (b"sealed", b"unsealed") or len(numbers) > 2 or not all(map(bytes.isdigit, numbers)):
            raise ValueError("seal/state is malformed")
        return cls(word == b"sealed", *map(int, numbers))

    def encode(self) -> bytes:
        """The state as it is stored."""
        text = b"%s:%d" % (b"sealed" if self.is_sealed else b"unsealed", self.generation)
        return text if self.term == 1 else b"%s:%d" % (text, self.term)

    def next(self, *, is_sealed: bool) -> SealState:
        """The state after a change."""
        return SealState(is_sealed, self.generation + 1, self.term)

    def under(self, term: int) -> SealState:
        """The state when another key term is in use."""
        return SealState(self.is_sealed, self.generation, term)

    @property
    def late_nonce(self) -> str:
        """Names the attempt of replicas that are still without a key while the cluster is unsealed."""
        return f"unsealed-{self.generation}"


def require_config(view: View) -> storage.SealConfig:
    """The shares' digests and the sealed root key; not to be changed. Raises NotInitialized."""
    config = view.parsed(keyspace.SEAL_CONFIG, _config)
    if config is None:
        raise NotInitialized
    return config


def require_state(view: View) -> SealState:
    """Raises NotInitialized."""
    state = SealState.parse(view.get(keyspace.SEAL_STATE).value)
    if state is None:
        raise NotInitialized
    return state


def require_keys(view: View) -> tuple[storage.Keyring, storage.RecordKeyring]:
    """The wrapped keys of every term; copies. Raises NotInitialized."""
    view.prefetch(keyspace.SEAL_KEYRING, keyspace.SEAL_RECORD_KEY)
    keyring = _read(view, keyspace.SEAL_KEYRING, storage.Keyring())
    record_keys = _read(view, keyspace.SEAL_RECORD_KEY, storage.RecordKeyring())
    if keyring is None or record_keys is None:
        raise NotInitialized
    return keyring, record_keys


def put_keys(view: View, keyring: storage.Keyring, record_keys: storage.RecordKeyring) -> None:
    """Put the wrapped keys of every term."""
    view.put(keyspace.SEAL_KEYRING, keyring.SerializeToString(deterministic=True))
    view.put(keyspace.SEAL_RECORD_KEY, record_keys.SerializeToString(deterministic=True))


def read_attempt(view: View) -> storage.UnsealAttempt | None:
    """The shares given so far; a copy."""
    return _read(view, keyspace.SEAL_ATTEMPT, storage.UnsealAttempt())


def read_replica(view: View, node_id: str) -> storage.SealReplica | None:
    """A replica's record; a copy."""
    return _read(view, keyspace.seal_replica(node_id), storage.SealReplica())


def put_replica(view: View, replica: storage.SealReplica) -> None:
    """Put a replica's record."""
    view.put(keyspace.seal_replica(replica.node), replica.SerializeToString(deterministic=True))


def prefetch(view: View) -> None:
    """Fetch all that a decision about shares needs, in one round trip."""
    view.prefetch(keyspace.SEAL_CONFIG, keyspace.SEAL_STATE, keyspace.SEAL_ATTEMPT)


def _read(view: View, key: bytes, into: M) -> M | None:
    value = view.get(key).value
    if value is None:
        return None
    into.ParseFromString(value)
    return into


def _config(_: bytes, value: bytes) -> storage.SealConfig:
    return storage.SealConfig.FromString(value)
