"""Unsealing as decisions: pure functions of a view, and the shares a replica holds meanwhile.

* A share is valid when its digest is in the configuration. Any other is refused and changes nothing.
* While the cluster is sealed, `seal/attempt` counts which valid shares were given, under a nonce; the
  shares themselves are only in the memory of seal replicas (`Pool`), each under the nonce of its attempt.
* A share given again is refused, except for the very call that gave it (the gateway repeats calls; the
  attempt has their ids), and when the replicas that held it are gone: then it is taken again and still counts
  once.
* A reset needs a valid share; it forgets the attempt, and with its nonce every share that any replica holds.
* A replica that holds a threshold of shares opens the root key and completes: sealed:g → unsealed:g+1, the
  attempt deleted, and its own record saying that it holds a key, in one transaction. A replica that completes
  later finds the cluster unsealed and only writes that it holds a key too.
* While the cluster is unsealed, shares go to the replicas without a key under the nonce `unsealed-<g>`;
  nothing of that is in etcd.
* Only what changes something is audited, so the valid shares of one owner cannot fill the outbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.seal import repository
from services.seal.keys.root_key import is_share_of
from services.seal.repository import SealState
from strongbox.crypto.shamir import Share
from strongbox.errors import InvalidInput, RepeatedShare, WrongShare
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

BY_PEER = ""  # instead of an attempt's nonce: the root key came from a peer, not from shares


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of unsealing in etcd; `nonce` names the attempt that shares given now belong to.

    `requests`: by the index of each share given, the id of the request that gave it.
    """

    config: storage.SealConfig
    state: SealState
    nonce: str
    requests: Mapping[int, str]

    @property
    def given(self) -> frozenset[int]:
        """The indexes of the shares given."""
        return frozenset(self.requests)


class Pool:
    """The valid shares this replica holds for one attempt; those of another attempt replace them."""

    def __init__(self) -> None:
        self._nonce = ""
        self._shares: dict[int, Share] = {}

    def add(self, nonce: str, shares: Iterable[Share]) -> None:
        """Hold valid shares of the attempt `nonce`."""
        if nonce != self._nonce:
            self.drop()
            self._nonce = nonce
        self._shares.update((share.index, share) for share in shares)

    def of(self, nonce: str) -> dict[int, Share]:
        """The shares held for `nonce`, by index."""
        return dict(self._shares) if nonce == self._nonce else {}

    def drop(self) -> None:
        """Drop all shares."""
        self._nonce = ""
        self._shares.clear()

    def __repr__(self) -> str:
        return "Pool(…)"


def look(view: View) -> Standing:
    """The state of unsealing. Raises NotInitialized."""
    repository.prefetch(view)
    config, state = repository.require_config(view), repository.require_state(view)
    if not state.is_sealed:
        return Standing(config, state, state.late_nonce, {})
    attempt = repository.read_attempt(view) or storage.UnsealAttempt()
    return Standing(config, state, attempt.nonce, {n: attempt.requests[n] for n in attempt.indexes})


def require_share(config: storage.SealConfig, share: Share) -> None:
    """Raise WrongShare unless it is this cluster's."""
    if not is_share_of(config, share):
        raise WrongShare


def give(view: View, share: Share, fresh_nonce: str, request_id: str, *, lost: bool = False) -> Standing:
    """Count a share in for the call `request_id`; `lost`: no replica holds it, though it may be counted.

    Raises NotInitialized, WrongShare, RepeatedShare.
    """
    standing = look(view)
    require_share(standing.config, share)
    giver = standing.requests.get(share.index)
    if not standing.state.is_sealed or giver == request_id:
        view.draft = None
        return standing
    if giver is not None and not lost:
        raise RepeatedShare
    nonce = standing.nonce or fresh_nonce
    return _count(view, standing, nonce, {**standing.requests, share.index: request_id})


def reset(view: View, share: Share) -> Standing:
    """Forget the attempt; the share given with it is not counted. Raises NotInitialized, WrongShare."""
    standing = look(view)
    require_share(standing.config, share)
    if not standing.state.is_sealed or not standing.nonce:
        view.draft = None
        return standing
    view.delete(keyspace.SEAL_ATTEMPT)
    return Standing(standing.config, standing.state, "", {})


def correct(view: View, nonce: str, held: frozenset[int]) -> Standing:
    """Count only `held` shares: the replicas that held others are gone, so those must be given again."""
    standing = look(view)
    if not standing.state.is_sealed or standing.nonce != nonce or not standing.given - held:
        return standing
    kept = {index: request for index, request in standing.requests.items() if index in held}
    return _count(view, standing, nonce, kept)


def complete(view: View, nonce: str, replica: storage.SealReplica) -> SealState:
    """The root key was opened: unseal if sealed, and write that `replica` holds a key.

    Raises InvalidInput when the attempt was reset meanwhile.
    """
    standing = look(view)
    state, state_was_sealed = standing.state, standing.state.is_sealed
    if state_was_sealed:
        if standing.nonce != nonce or nonce == BY_PEER:
            raise InvalidInput("the attempt was reset")
        state = state.next(is_sealed=False)
        view.put(keyspace.SEAL_STATE, state.encode())
        view.delete(keyspace.SEAL_ATTEMPT)
    is_new = nonce != BY_PEER and view.get(keyspace.ordinal(replica.ordinal)).value is None
    if not state_was_sealed and not is_new:
        view.draft = None
    if is_new:
        view.put(keyspace.ordinal(replica.ordinal), replica.node.encode())
    told = storage.SealReplica()
    told.CopyFrom(replica)
    told.holds, told.generation = True, state.generation
    repository.put_replica(view, told)
    return state


def abandon(view: View, generation: int) -> SealState:
    """No replica holds a key of `generation` any more: put the state sealed, which it is in fact."""
    state = repository.require_state(view)
    if state.is_sealed or state.generation != generation:
        view.draft = None
        return state
    sealed = state.next(is_sealed=True)
    view.put(keyspace.SEAL_STATE, sealed.encode())
    return sealed


def seal(view: View) -> SealState:
    """Put the state sealed; the guard has checked that the cluster is unsealed."""
    sealed = repository.require_state(view).next(is_sealed=True)
    view.put(keyspace.SEAL_STATE, sealed.encode())
    return sealed


def _count(view: View, standing: Standing, nonce: str, requests: Mapping[int, str]) -> Standing:
    attempt = storage.UnsealAttempt(nonce=nonce, indexes=sorted(requests), requests=requests)
    view.put(keyspace.SEAL_ATTEMPT, attempt.SerializeToString(deterministic=True))
    return Standing(standing.config, standing.state, nonce, requests)
