"""Answers to the other services' questions: wrap, unwrap, rewrap, record keys.

* While the cluster is sealed, a caller without record keys is kept waiting for them a moment, so that every
  process hears of unsealing at once. A replica that alone has no key (it has just restarted) does not keep
  callers waiting: others have the keys.
* A term that this replica has not heard of, in a wrapped key or in what the caller knows to be in use, may
  have been begun by another: the keyring is read before the answer. If it cannot be read, this replica does
  not know whether that key opens: the answer is DEPENDENCY_DOWN, and the caller asks another replica. "It
  does not open" is final, so only a replica that knows every term says it.
* Wraps are counted before they are made (`wrap_counter`).
* A keyring is never held over an `await`: it may be replaced or wiped meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib

from services.seal.custody.held_keys import Custody
from services.seal.key_terms.keyring_refresh import Refresher
from services.seal.key_terms.wrap_counter import Wraps
from services.seal.keys.keyring import CALLERS, Keyring
from services.seal.repository import SealState
from strongbox.crypto.envelope import Dek, WrappedDek
from strongbox.errors import DependencyDown, NoQuorum, Overloaded, PermissionDenied, StrongBoxError
from strongbox.seal.v1 import seal_peer_service_pb2 as pb

# Callers give one replica 0.5 s. A proof that ran out while etcd elected a leader is often back sooner.
WAIT = 0.35  # seconds
_TRIES = 3  # reservations for one answer: a term may come into use, or another answer use the range up


def require_purpose(service: str) -> str:
    """The purpose of a caller, by its certificate. Raises PermissionDenied."""
    if service not in CALLERS:
        raise PermissionDenied("this certificate has no keys")
    return service


class KeyStream:
    """Answers for one replica."""

    def __init__(self, custody: Custody, refresher: Refresher, wraps: Wraps) -> None:
        self._custody, self._refresher, self._wraps = custody, refresher, wraps

    async def answer(
        self, purpose: str, request: pb.StreamKeysRequest, state: SealState | None
    ) -> pb.StreamKeysResponse:
        """The answer, or an error: SEALED, NO_QUORUM, OVERLOADED, DEPENDENCY_DOWN, INVALID_ARGUMENT.

        `state`: the last seal state that was seen.
        """
        if request.wait and (state is None or state.is_sealed):
            await _happens(self._custody.opened)
        try:
            keyring = await self._counted(request)
            return _answer(keyring, purpose, request)
        except StrongBoxError as refusal:
            return pb.StreamKeysResponse(id=request.id, error=refusal.reason)
        except ValueError:
            # A data key of a wrong size: a message would add nothing.
            return pb.StreamKeysResponse(id=request.id, error="INVALID_ARGUMENT")

    async def _counted(self, request: pb.StreamKeysRequest) -> Keyring:
        """The keyring, to be used at once; the wraps that the answer needs are counted as used."""
        keyring = await self._fresh()
        if _is_ahead(request, keyring):
            knows_all = await self._refresher.look()
            keyring = await self._fresh()
            # Nothing is wrapped under an older term than the caller knows to be in use.
            if request.term > keyring.term or (not knows_all and _is_ahead(request, keyring)):
                raise DependencyDown("this replica does not know that key term yet")
        count = len(request.wrap) + len(request.rewrap)
        for _ in range(_TRIES):
            if not count or self._wraps.take(keyring.term, count):
                return keyring
            await self._wraps.reserve(keyring.term, count)
            keyring = await self._fresh()
        raise Overloaded("too many wraps at once")

    async def _fresh(self) -> Keyring:
        try:
            return self._custody.keyring()
        except NoQuorum:
            await _happens(self._custody.proven)
            return self._custody.keyring()


def _is_ahead(request: pb.StreamKeysRequest, keyring: Keyring) -> bool:
    """Whether the request names a term that is newer than all that are known here."""
    several = (*request.unwrap, *request.rewrap)
    return request.term > keyring.term or any(keyring.is_behind(one.term) for one in several)


async def _happens(event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT):
            await event.wait()


def _answer(keyring: Keyring, purpose: str, request: pb.StreamKeysRequest) -> pb.StreamKeysResponse:
    reply = pb.StreamKeysResponse(id=request.id)
    if request.wrap:
        deks = [Dek(item.id, item.key) for item in request.wrap]
        reply.wrapped.extend(map(_to_proto, keyring.wrap(purpose, deks)))
    if request.rewrap:
        several = [_from_proto(item) for item in request.rewrap]
        for asked, found in zip(several, keyring.rewrap(purpose, several), strict=True):
            reply.wrapped.append(_to_proto(found) if found else pb.WrappedDataKey(id=asked.id))
    if request.unwrap:
        wrapped = [_from_proto(item) for item in request.unwrap]
        keys = keyring.unwrap(purpose, wrapped)
        reply.unwrapped.extend(
            pb.DataKey(id=item.id, key=key) for item, key in zip(wrapped, keys, strict=True)
        )
    if request.record_keys:
        reply.term = keyring.term
        known = keyring.record_keys.by_term
        reply.record_keys.extend(
            pb.RecordKey(term=term, key=known[term]) for term in sorted(known, reverse=True)
        )
    return reply


def _from_proto(item: pb.WrappedDataKey) -> WrappedDek:
    return WrappedDek(item.id, item.term, item.ciphertext, item.tag, item.nonce)


def _to_proto(item: WrappedDek) -> pb.WrappedDataKey:
    return pb.WrappedDataKey(
        id=item.id, term=item.term, ciphertext=item.ciphertext, tag=item.tag, nonce=item.nonce
    )
