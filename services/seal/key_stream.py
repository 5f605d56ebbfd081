"""Answers to the other services' questions: wrap, unwrap, record keys. Pure but for one short wait each.

While the cluster is sealed, whoever has no record keys is kept waiting for them a moment: so unsealing is
heard in every process at once. A replica that alone has no key (it has just restarted) keeps nobody waiting:
others have the keys.
"""

from __future__ import annotations

import asyncio
import contextlib

from services.seal.custody import Custody
from services.seal.keyring import CALLERS, Keyring
from services.seal.repository import SealState
from strongbox.crypto.envelope import Dek, WrappedDek
from strongbox.errors import NoQuorum, PermissionDenied, StrongBoxError
from strongbox.seal.v1 import seal_peer_service_pb2 as pb

# Callers give one replica 0.5 s. A proof that ran out while etcd elected a leader is often back sooner.
WAIT = 0.35  # seconds


def require_purpose(service: str) -> str:
    """The purpose of a caller, by its certificate. Raises PermissionDenied."""
    if service not in CALLERS:
        raise PermissionDenied("this certificate has no keys")
    return service


async def answer(
    custody: Custody, purpose: str, request: pb.StreamKeysRequest, state: SealState | None
) -> pb.StreamKeysResponse:
    """What was asked, or why not: SEALED, NO_QUORUM, INVALID_ARGUMENT; `state`: the last that was seen."""
    if request.wait and (state is None or state.is_sealed):
        await _happens(custody.opened)
    try:
        return _answer(await _fresh_keyring(custody), purpose, request)
    except StrongBoxError as refusal:
        return pb.StreamKeysResponse(id=request.id, error=refusal.reason)
    except ValueError:
        # A data key of a wrong size; the words could quote nothing, but there is nothing to say either.
        return pb.StreamKeysResponse(id=request.id, error="INVALID_ARGUMENT")


async def _fresh_keyring(custody: Custody) -> Keyring:
    try:
        return custody.keyring()
    except NoQuorum:
        await _happens(custody.proven)
        return custody.keyring()


async def _happens(event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT):
            await event.wait()


def _answer(keyring: Keyring, purpose: str, request: pb.StreamKeysRequest) -> pb.StreamKeysResponse:
    reply = pb.StreamKeysResponse(id=request.id)
    if request.wrap:
        deks = [Dek(item.id, item.key) for item in request.wrap]
        reply.wrapped.extend(
            pb.WrappedDataKey(id=w.id, term=w.term, ciphertext=w.ciphertext, tag=w.tag, nonce=w.nonce)
            for w in keyring.wrap(purpose, deks)
        )
    if request.unwrap:
        wrapped = [WrappedDek(w.id, w.term, w.ciphertext, w.tag, w.nonce) for w in request.unwrap]
        keys = keyring.unwrap(purpose, wrapped)
        reply.unwrapped.extend(
            pb.DataKey(id=item.id, key=key) for item, key in zip(wrapped, keys, strict=True)
        )
    if request.record_keys:
        known = keyring.record_keys.by_term
        reply.record_keys.extend(
            pb.RecordKey(term=term, key=known[term]) for term in sorted(known, reverse=True)
        )
    return reply
