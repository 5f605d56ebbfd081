"""Rekey and generate-root as decisions: begun with a share, driven by a nonce, completed by a threshold.

    start     a valid share begins it; only its giver gets the nonce, etcd has the nonce's digest
    give      further shares, each with the nonce; the shares themselves are only in the memory of replicas
    propose   (rekey) a replica with a threshold makes new shares: their configuration is put beside the old
    verify    (rekey) a threshold of new shares was given back: the new configuration replaces the old one
    mint      (generate-root) a replica with a threshold makes a root token
    cancel    with the nonce, at any time

* One at a time of each kind. It ends by itself: when the cluster is sealed, or after an hour.
* Digests only recognise shares; that a threshold of them was there is proved by opening the root key with
  them, before anything is made (`ceremony_exchange`). Somebody who can write to etcd can put digests of other
  shares there, but those do not open the root key.
* The pending configuration carries an HMAC under the root key: one that was altered in etcd never replaces
  the old one.
* A share given again is refused, and nothing else changes; except for the very call that gave it, and except
  when the shares held are enough (completing failed before): then it completes.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.seal import repository
from services.seal.keys.root_key import is_share_of
from strongbox.crypto.aead import canonical_aad, is_equal
from strongbox.crypto.shamir import Share
from strongbox.errors import InvalidInput, PermissionDenied, RepeatedShare, Sealed, WrongShare
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

REKEY = "rekey"
GENERATE_ROOT = "generate-root"
KINDS = (REKEY, GENERATE_ROOT)
LASTS_MS = 3_600_000
_LABEL = "ceremony nonce v1"


def new_nonce() -> str:
    """32 characters that hold 24 random bytes: whoever has it may give further shares, or cancel."""
    return secrets.token_urlsafe(24)


def attempt_of(kind: str, nonce: str) -> bytes:
    """32 bytes that recognise a nonce and tell nothing of it: 192 random bits need no salt."""
    return hashlib.sha256(canonical_aad(_LABEL, kind, nonce)).digest()


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a ceremony."""

    config: storage.SealConfig
    record: storage.Ceremony

    @property
    def given(self) -> Mapping[int, str]:
        """By the index of each share given, the id of the call that gave it."""
        return self.record.given

    @property
    def is_collecting(self) -> bool:
        """Whether present shares are still asked for."""
        return not self.record.HasField("pending")


def find(view: View, kind: str) -> Standing | None:
    """The ceremony under way. Raises NotInitialized, Sealed."""
    key = keyspace.ceremony(kind)
    view.prefetch(keyspace.SEAL_CONFIG, keyspace.SEAL_STATE, key)
    config, state = repository.require_config(view), repository.require_state(view)
    if state.is_sealed:
        raise Sealed
    view.found_unsealed()
    value = view.get(key).value
    record = storage.Ceremony.FromString(value or b"")
    over = record.generation != state.generation or view.now_ms - record.begun_ms >= LASTS_MS
    return None if value is None or over else Standing(config, record)


def require(view: View, kind: str, attempt: bytes) -> Standing:
    """The ceremony that this nonce drives. Raises InvalidInput, PermissionDenied, and as `find`."""
    found = find(view, kind)
    if found is None:
        raise InvalidInput(f"no {kind} is under way")
    if not is_equal(found.record.attempt, attempt):
        raise PermissionDenied("this is not the nonce of what is under way")
    return found


def start(
    view: View, kind: str, share: Share, attempt: bytes, call: str, wanted: tuple[int, int] = (0, 0)
) -> Standing:
    """Begin; `wanted`: new shares and threshold. Raises WrongShare, InvalidInput, and as `find`."""
    known = find(view, kind)
    config, state = repository.require_config(view), repository.require_state(view)
    if not is_share_of(config, share):
        raise WrongShare
    if known is not None:
        raise InvalidInput(
            f"a {kind} is under way: it ends by its nonce, when the cluster is sealed, or after an hour"
        )
    record = storage.Ceremony(
        attempt=attempt,
        generation=state.generation,
        begun_ms=view.now_ms,
        given={share.index: call},
        shares=wanted[0],
        threshold=wanted[1],
    )
    return _put(view, kind, Standing(config, record))


def give(
    view: View, kind: str, share: Share, attempt: bytes, call: str, held: frozenset[int] = frozenset()
) -> Standing:
    """Count a share in; `held`: the indexes of shares in any replica's memory, this one included.

    Raises WrongShare, RepeatedShare, and as `require`.
    """
    standing = require(view, kind, attempt)
    if not standing.is_collecting:
        raise InvalidInput("the new shares are made; they are to be verified")
    if not is_share_of(standing.config, share):
        raise WrongShare
    giver = standing.given.get(share.index)
    if giver is not None:
        if giver != call and len(held) < standing.config.threshold:
            raise RepeatedShare
        view.draft = None
        return standing
    record = _copy(standing.record)
    record.given[share.index] = call
    return _put(view, kind, Standing(standing.config, record))


def correct(view: View, kind: str, attempt: bytes, held: frozenset[int]) -> Standing:
    """Count only `held` shares: the replicas that held others are gone, so those must be given again."""
    standing = require(view, kind, attempt)
    lost = set(standing.given) - held
    if not standing.is_collecting or not lost:
        return standing
    record = _copy(standing.record)
    for index in lost:
        del record.given[index]
    return _put(view, kind, Standing(standing.config, record))


def propose(view: View, attempt: bytes, pending: storage.SealConfig, pending_mac: bytes) -> Standing:
    """Put the configuration that new shares open beside the old one. Raises as `give`."""
    standing = require(view, REKEY, attempt)
    if not standing.is_collecting:
        raise InvalidInput("the new shares are made; they are to be verified")
    record = _copy(standing.record)
    record.pending.CopyFrom(pending)
    record.pending_mac = pending_mac
    return _put(view, REKEY, Standing(standing.config, record))


def verify(
    view: View, share: Share, attempt: bytes, call: str, is_ours: Callable[[storage.Ceremony], bool]
) -> tuple[Standing, bool]:
    """Count a new share as verified; with a threshold of them the new shares replace the old: then True.

    Raises WrongShare, RepeatedShare, InvalidInput, and as `require`.
    """
    standing = require(view, REKEY, attempt)
    if standing.is_collecting:
        raise InvalidInput("there are no new shares yet")
    pending = standing.record.pending
    if not is_ours(standing.record):
        raise InvalidInput("what waits in etcd was altered; cancel, and begin anew")
    if not is_share_of(pending, share):
        raise WrongShare
    giver = standing.record.verified.get(share.index)
    if giver is not None:
        if giver != call:
            raise RepeatedShare
        view.draft = None
        return standing, False
    record = _copy(standing.record)
    record.verified[share.index] = call
    after = Standing(standing.config, record)
    if len(record.verified) < pending.threshold:
        return _put(view, REKEY, after), False
    view.put(keyspace.SEAL_CONFIG, pending.SerializeToString(deterministic=True))
    for kind in KINDS:  # also a generate-root, since it holds old shares
        view.delete(keyspace.ceremony(kind))
    return after, True


def mint(view: View, attempt: bytes, puts: Callable[[int, int], Mapping[bytes, bytes]]) -> None:
    """Put a root token's records, `puts(term in use, ms)`, and end the ceremony. Raises as `require`."""
    require(view, GENERATE_ROOT, attempt)
    for key, value in puts(repository.require_state(view).term, view.now_ms).items():
        view.put(key, value)
    view.delete(keyspace.ceremony(GENERATE_ROOT))


def cancel(view: View, kind: str, attempt: bytes) -> None:
    """End the ceremony. Raises as `require`."""
    require(view, kind, attempt)
    view.delete(keyspace.ceremony(kind))


def _copy(record: storage.Ceremony) -> storage.Ceremony:
    copy = storage.Ceremony()
    copy.CopyFrom(record)
    return copy


def _put(view: View, kind: str, standing: Standing) -> Standing:
    view.put(keyspace.ceremony(kind), standing.record.SerializeToString(deterministic=True))
    return standing
