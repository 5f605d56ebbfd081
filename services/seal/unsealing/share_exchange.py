"""The work of unsealing: shares counted in etcd, exchanged with the peers, put together, the keys opened.

A share given here goes to every live replica, with all others that this one holds of the attempt, and each
answers with those it holds besides: after one exchange all have the same. Each replica that then has a
threshold opens the keys itself, so shares given to different nodes unseal all of them. One that was away gets
the rest from the next exchange, or the root key from a peer (`peer_unseal`).

A share given again is refused when a live replica holds it. But if the shares held are enough (completing
failed, or a relay got lost), they open the keys, and it is no error.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from services.seal import seal_decisions
from services.seal.custody.key_holders import Found, Holders
from services.seal.custody.seal_when_unheld import abandoning
from services.seal.keys import root_key
from services.seal.peer_calls import Peers, Stub
from services.seal.seal_decisions import Pool, Standing
from services.seal.unsealing.open_keyring import Opener
from services.seal.worker_thread import Computing
from strongbox.audit_outbox.outbox import draft_of
from strongbox.crypto import IntegrityError, ShareError
from strongbox.crypto.shamir import Share
from strongbox.errors import InvalidInput, NoQuorum, RepeatedShare, StrongBoxError
from strongbox.rpc.request_context import Inbound
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View
from strongbox.store.etcd.errors import EtcdError

PATH = "sys/unseal"
_EXCHANGE_WITHIN = 1.5  # seconds
_LOOKS = (0.5, 0.5)  # seconds after each look for a holder
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """The answer to a share."""

    sealed: bool
    given: int
    threshold: int
    nonce: str


def parse_share(text: str) -> Share:
    """Raises InvalidInput, which never quotes the text."""
    try:
        return Share.decode(text)
    except ShareError as error:
        raise InvalidInput(str(error)) from None


class Unsealing:
    """Unsealing on one replica."""

    def __init__(
        self, pipeline: Pipeline, peers: Peers, holders: Holders, opener: Opener, computing: Computing
    ) -> None:
        self._pipeline, self._peers, self._holders, self._opener = pipeline, peers, holders, opener
        self._computing = computing
        self._pool = Pool()
        self._one_at_a_time = asyncio.Lock()

    async def give(self, share: Share, inbound: Inbound) -> Progress:
        """Count a share in, exchange shares, and open the keys if they are enough.

        Raises NotInitialized, WrongShare, RepeatedShare, NoQuorum, UnknownOutcome; Overloaded when the share
        counts and there was no time to put the shares together: giving it again does that.
        """
        try:
            standing = await self._count(share, inbound)
        except RepeatedShare:
            standing = (await self._pipeline.submit(Work(seal_decisions.look, None, inbound.deadline))).value
            if await self._is_kept(standing, share, inbound.deadline):
                return await self._require_open(standing, share, inbound.deadline)
            standing = await self._count(share, inbound, lost=True)
        return await self._advance(standing, share, inbound.deadline)

    async def reset(self, share: Share, inbound: Inbound) -> Progress:
        """Forget the attempt. Raises as `give`."""
        draft = draft_of(inbound, "ResetUnseal", PATH)
        work = Work(lambda view: seal_decisions.reset(view, share), draft, inbound.deadline, always=True)
        standing = (await self._pipeline.submit(work)).value
        self._pool.drop()
        return _progress(standing, standing.given)

    async def catch_up(self) -> None:
        """Ask the peers, once, for the shares of the attempt under way: a new process has lost its own."""
        while True:
            deadline = time.monotonic() + _EXCHANGE_WITHIN
            try:
                standing = (await self._pipeline.submit(Work(seal_decisions.look, None, deadline))).value
            except NoQuorum:
                await asyncio.sleep(0.2)
                continue
            except StrongBoxError:
                return  # not initialized
            if standing.given:
                await self._exchange(standing, {}, deadline)
            return

    async def relayed(self, nonce: str, texts: Iterable[bytes], deadline: float) -> pb.RelaySharesResponse:
        """A peer's shares: held if valid and of the attempt under way; opens the keys if they are enough."""
        shares = [parse_share(text.decode("ascii", "replace")) for text in texts]
        work = Work(seal_decisions.look, None, deadline)
        standing = (await self._pipeline.submit(work)).value
        for share in shares:
            seal_decisions.require_share(standing.config, share)
        if self._opener.is_open:
            return pb.RelaySharesResponse(sealed=False)
        extra: list[Share] = []
        if nonce == standing.nonce:
            self._pool.add(nonce, shares)
            sent = {share.index for share in shares}
            extra = [share for index, share in self._pool.of(nonce).items() if index not in sent]
        await self._open(standing, nonce, {share.index: share for share in (*shares, *extra)}, deadline)
        return pb.RelaySharesResponse(
            sealed=not self._opener.is_open, shares=[share.encode().encode() for share in extra]
        )

    async def _count(self, share: Share, inbound: Inbound, *, lost: bool = False) -> Standing:
        """Record that a share was given. Raises as `seal_decisions.give`."""
        fresh = secrets.token_hex(8)
        call = inbound.idempotency_key or inbound.request_id

        def decide(view: View) -> Standing:
            return seal_decisions.give(view, share, fresh, call, lost=lost)

        work = Work(decide, draft_of(inbound, "Unseal", PATH), inbound.deadline, always=True)
        standing = (await self._pipeline.submit(work)).value
        if not standing.state.is_sealed and not await self._is_held():
            await self._pipeline.submit(abandoning(standing.state.generation))
            standing = (await self._pipeline.submit(work)).value
        return standing

    async def _is_kept(self, standing: Standing, share: Share, deadline: float) -> bool:
        """Whether a live replica holds `share` of this attempt; asks others only if this one does not."""
        held = self._pool.of(standing.nonce)
        return share.index in held or share.index in await self._exchange(standing, held, deadline)

    async def _require_open(self, standing: Standing, share: Share, deadline: float) -> Progress:
        """Unseal if what is held is enough. Raises RepeatedShare when it is not."""
        if len(standing.given) >= standing.config.threshold:
            told = await self._advance(standing, share, deadline)
            if not told.sealed:
                return told
        raise RepeatedShare

    async def _advance(self, standing: Standing, share: Share, deadline: float) -> Progress:
        nonce, held = standing.nonce, {share.index: share}
        if not self._opener.is_open:
            self._pool.add(nonce, [share])
            held = self._pool.of(nonce)
        await self._open(standing, nonce, held, deadline)
        held = await self._exchange(standing, held, deadline)
        if not self._opener.is_open and await self._open(standing, nonce, held, deadline):
            await self._exchange(standing, held, deadline)
        return await self._told(standing, held, deadline)

    async def _exchange(
        self, standing: Standing, held: dict[int, Share], deadline: float
    ) -> dict[int, Share]:
        """Send `held` to every peer and take what they hold besides; returns all of them, by index."""
        texts = [share.encode().encode() for share in held.values()]
        request = pb.RelaySharesRequest(nonce=standing.nonce, shares=texts)

        async def relay(stub: Stub, seconds: float) -> pb.RelaySharesResponse:
            return await stub.RelayShares(request, timeout=seconds)

        answers = await self._peers.ask_all(relay, min(deadline, time.monotonic() + _EXCHANGE_WITHIN))
        together = dict(held)
        for answer in answers:
            for text in answer.shares:
                share = parse_share(text.decode("ascii", "replace"))
                if root_key.is_share_of(standing.config, share):
                    together[share.index] = share
        if not self._opener.is_open:
            self._pool.add(standing.nonce, together.values())
        return together

    async def _open(self, standing: Standing, nonce: str, held: dict[int, Share], deadline: float) -> bool:
        """Open the keys if there are enough shares; returns whether this replica holds keys now."""
        # Shares from before a rekey may still be held: the nonce names the cluster's generation, not its
        # shares.
        held = {n: share for n, share in held.items() if root_key.is_share_of(standing.config, share)}
        async with self._one_at_a_time:
            if self._opener.is_open or len(held) < standing.config.threshold:
                return self._opener.is_open
            chosen = list(held.values())[: standing.config.threshold]
            try:
                root = await self._computing.run(deadline, root_key.open_root, standing.config, chosen)
            except IntegrityError:
                _log.error("valid shares do not open the root key: seal/config was altered")
                return False
            draft = Draft(op="Unsealed", path=PATH, request_id="", client="")
            try:
                await self._opener.open(root, standing.config, nonce, draft, deadline)
            except InvalidInput:
                _log.info("the attempt was reset before it was complete")
                return False
            self._pool.drop()
            return True

    async def _told(self, standing: Standing, held: dict[int, Share], deadline: float) -> Progress:
        """The answer: what etcd says now, without shares that were lost with the replicas that held them."""
        if self._opener.is_open:
            return _progress(standing, frozenset(), sealed=False)
        look = Work(seal_decisions.look, None, deadline)
        now = (await self._pipeline.submit(look)).value
        if not now.state.is_sealed:
            sealed = not await self._is_held()
            return _progress(now, frozenset(held) if sealed else frozenset(), sealed=sealed)
        if len(now.given) >= now.config.threshold:
            known = frozenset(self._pool.of(now.nonce))
            work = Work(lambda view: seal_decisions.correct(view, now.nonce, known), None, deadline)
            now = (await self._pipeline.submit(work)).value
        return _progress(now, now.given)

    async def _is_held(self) -> bool:
        """Whether a replica holds a key; False only after a second, in which sessions settle, and asking."""
        try:
            for pause in _LOOKS:
                if self._opener.is_open or await self._holders.is_shown():
                    return True
                await asyncio.sleep(pause)
            return await self._holders.look() is Found.HELD
        except EtcdError:
            raise NoQuorum from None


def _progress(standing: Standing, given: frozenset[int], *, sealed: bool = True) -> Progress:
    nonce = standing.nonce if sealed else ""
    return Progress(sealed, len(given), standing.config.threshold, nonce)
