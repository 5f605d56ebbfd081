"""The work of rekey and generate-root: shares exchanged among the replicas and put together.

Shares are held by every live replica, under the digest of the nonce, and nowhere else; so any replica can go
on when another is lost. One that has restarted gets them with the next exchange. Shares that no live replica
holds are taken off the count, and have to be given again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from services.seal.ceremonies import ceremony_decisions
from services.seal.ceremonies.ceremony_decisions import GENERATE_ROOT, REKEY, Standing
from services.seal.ceremonies.ceremony_results import RootToken, make_shares, pending_mac
from services.seal.custody.held_keys import Custody
from services.seal.keys.root_key import is_share_of, open_root
from services.seal.peer_calls import Peers, Stub
from services.seal.seal_decisions import Pool
from services.seal.unsealing.initialize import require_numbers
from services.seal.unsealing.share_exchange import parse_share
from services.seal.worker_thread import Computing
from strongbox.audit_outbox.outbox import draft_of
from strongbox.crypto.aead import is_equal
from strongbox.crypto.errors import IntegrityError
from strongbox.crypto.shamir import Share
from strongbox.errors import Internal, InvalidInput, Sealed, StrongBoxError
from strongbox.rpc.request_context import Inbound
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View

T = TypeVar("T")
_EXCHANGE_WITHIN = 1.2  # seconds
_TIDY_EVERY = 2.0  # seconds
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """The answer to a share; `made`: new shares, or the root token, for this caller alone."""

    nonce: str = field(repr=False)
    given: int
    threshold: int
    complete: bool = False
    made: tuple[str, ...] = field(default=(), repr=False)
    made_threshold: int = 0

    @property
    def progress(self) -> str:
        """Shares given of those needed, such as "1/2"."""
        return f"{self.given}/{self.threshold}"


class Ceremonies:
    """Rekey and generate-root on one replica."""

    def __init__(self, pipeline: Pipeline, peers: Peers, custody: Custody, computing: Computing) -> None:
        self._pipeline, self._peers, self._custody = pipeline, peers, custody
        self._computing = computing
        self._pools = {kind: Pool() for kind in ceremony_decisions.KINDS}
        self._attempts: dict[str, bytes] = {}

    async def start(self, kind: str, share: Share, inbound: Inbound, wanted: tuple[int, int]) -> Step:
        """Begin with a valid share. Raises WrongShare, InvalidInput, Sealed, NoQuorum, UnknownOutcome."""
        await self.require_open(inbound)
        if kind == REKEY:
            require_numbers(*wanted)
        nonce = ceremony_decisions.new_nonce()
        attempt, call = ceremony_decisions.attempt_of(kind, nonce), _call(inbound)

        def decide(view: View) -> Standing:
            return ceremony_decisions.start(view, kind, share, attempt, call, wanted)

        await self._submit(decide, inbound, _op("Start", kind), kind)
        self._hold(kind, attempt, [share])
        return await self._advance(kind, nonce, inbound)

    async def update(self, kind: str, nonce: str, share: Share, inbound: Inbound) -> Step:
        """Give a further share. Raises WrongShare, RepeatedShare, PermissionDenied, and as `start`."""
        await self.require_open(inbound)
        attempt, call = ceremony_decisions.attempt_of(kind, nonce), _call(inbound)
        standing = await self._submit(lambda view: ceremony_decisions.require(view, kind, attempt), inbound)
        held = await self._exchange(kind, standing, inbound.deadline)
        known = frozenset(held)
        if share.index not in known and share.index in standing.given:
            # The replicas that held it are gone: it is counted again.
            await self._submit(lambda view: ceremony_decisions.correct(view, kind, attempt, known), inbound)

        def decide(view: View) -> Standing:
            return ceremony_decisions.give(view, kind, share, attempt, call, known)

        if is_share_of(standing.config, share) and standing.is_collecting:
            # Held before it is counted: whoever counts another share at the same moment finds this one.
            self._hold(kind, attempt, [share])
        await self._submit(decide, inbound, _op("Update", kind), kind)
        return await self._advance(kind, nonce, inbound)

    async def verify(self, nonce: str, share: Share, inbound: Inbound) -> Step:
        """Give a new share back; a threshold of them replaces the old ones. Raises as `update`."""
        await self.require_open(inbound)
        attempt, call = ceremony_decisions.attempt_of(REKEY, nonce), _call(inbound)

        def decide(view: View) -> tuple[Standing, bool]:
            return ceremony_decisions.verify(view, share, attempt, call, self._is_ours)

        standing, complete = await self._submit(decide, inbound, "VerifyRekey", REKEY)
        if complete:
            _log.warning("the key shares were replaced", threshold=standing.record.pending.threshold)
        record = standing.record
        return Step(nonce, len(record.verified), record.pending.threshold, complete)

    async def cancel(self, kind: str, nonce: str, inbound: Inbound) -> None:
        """End it. Raises PermissionDenied, InvalidInput, Sealed, NoQuorum, UnknownOutcome."""
        await self.require_open(inbound)
        attempt = ceremony_decisions.attempt_of(kind, nonce)
        op = _op("Cancel", kind)
        await self._submit(lambda view: ceremony_decisions.cancel(view, kind, attempt), inbound, op, kind)
        self._pools[kind].drop()

    async def exchanged(
        self, request: pb.ExchangeSharesRequest, deadline: float
    ) -> pb.ExchangeSharesResponse:
        """Hold a peer's shares if they are valid and of the attempt under way; answer with those it lacks."""
        shares = [parse_share(text.decode("ascii", "replace")) for text in request.shares]
        kind = request.ceremony
        if kind not in ceremony_decisions.KINDS:
            raise InvalidInput("no such ceremony")
        work = Work(lambda view: ceremony_decisions.find(view, kind), None, deadline)
        standing = (await self._pipeline.submit(work)).value
        if standing is None or standing.record.attempt.hex() != request.attempt or not standing.is_collecting:
            return pb.ExchangeSharesResponse()
        valid = [share for share in shares if is_share_of(standing.config, share)]
        self._hold(kind, standing.record.attempt, valid)
        sent = {share.index for share in shares}
        known = self._pools[kind].of(request.attempt)
        return pb.ExchangeSharesResponse(
            shares=[share.encode().encode() for index, share in known.items() if index not in sent]
        )

    async def tidy(self) -> None:
        """For ever: drop shares whose ceremony is over."""
        while True:
            await asyncio.sleep(_TIDY_EVERY)
            for kind, attempt in list(self._attempts.items()):
                try:
                    work = Work(_finding(kind), None, time.monotonic() + _TIDY_EVERY)
                    standing = (await self._pipeline.submit(work)).value
                except Sealed:
                    standing = None
                except StrongBoxError:
                    continue
                if standing is None or standing.record.attempt != attempt or not standing.is_collecting:
                    self._pools[kind].drop()
                    self._attempts.pop(kind, None)

    async def require_open(self, inbound: Inbound) -> None:
        """Raise NotInitialized or Sealed before a call's fields are checked, NoQuorum without a proof."""
        if self._custody.generation is None:
            await self._submit(lambda view: ceremony_decisions.find(view, REKEY), inbound)
            raise Sealed
        self._custody.keyring()

    async def _advance(self, kind: str, nonce: str, inbound: Inbound) -> Step:
        """Exchange what is held; complete if it is enough."""
        attempt = ceremony_decisions.attempt_of(kind, nonce)
        standing = await self._submit(lambda view: ceremony_decisions.require(view, kind, attempt), inbound)
        held = await self._exchange(kind, standing, inbound.deadline)
        threshold = standing.config.threshold
        if len(held) < threshold:
            known = frozenset(held)
            standing = await self._submit(
                lambda view: ceremony_decisions.correct(view, kind, attempt, known), inbound
            )
            return Step(nonce, len(standing.given), threshold)
        present = list(held.values())[:threshold]
        try:
            step = await self._complete(kind, nonce, standing, present, inbound)
        except IntegrityError:
            _log.error("valid shares do not open the root key: seal/config was altered")
            raise Internal from None
        self._pools[kind].drop()
        return step

    async def _complete(
        self, kind: str, nonce: str, standing: Standing, present: list[Share], inbound: Inbound
    ) -> Step:
        attempt, threshold = standing.record.attempt, standing.config.threshold
        if kind == REKEY:
            wanted = standing.record
            new = await self._computing.run(
                inbound.deadline,
                make_shares,
                standing.config,
                present,
                attempt,
                wanted.shares,
                wanted.threshold,
            )
            await self._submit(
                lambda view: ceremony_decisions.propose(view, attempt, new.config, new.mac),
                inbound, "MakeKeyShares", REKEY,
            )  # fmt: skip
            made = tuple(share.encode() for share in new.shares)
            return Step(nonce, threshold, threshold, True, made, wanted.threshold)
        await self._computing.run(inbound.deadline, open_root, standing.config, present)
        token = RootToken(self._custody.keyring().record_keys)
        await self._submit(
            lambda view: ceremony_decisions.mint(view, attempt, token.puts),
            inbound,
            "GenerateRoot",
            GENERATE_ROOT,
        )
        _log.warning("a root token was made by key shares")
        return Step(nonce, threshold, threshold, True, (token.token,))

    async def _exchange(self, kind: str, standing: Standing, deadline: float) -> dict[int, Share]:
        """Send the shares held to every peer and take theirs; returns all that are held then, by index."""
        name = standing.record.attempt.hex()
        held = self._pools[kind].of(name)
        texts = [share.encode().encode() for share in held.values()]
        request = pb.ExchangeSharesRequest(ceremony=kind, attempt=name, shares=texts)

        async def ask(stub: Stub, seconds: float) -> pb.ExchangeSharesResponse:
            return await stub.ExchangeShares(request, timeout=seconds)

        answers = await self._peers.ask_all(ask, min(deadline, time.monotonic() + _EXCHANGE_WITHIN))
        told = [parse_share(text.decode("ascii", "replace")) for one in answers for text in one.shares]
        self._hold(
            kind, standing.record.attempt, [share for share in told if is_share_of(standing.config, share)]
        )
        return self._pools[kind].of(name)

    def _hold(self, kind: str, attempt: bytes, shares: Iterable[Share]) -> None:
        self._pools[kind].add(attempt.hex(), shares)
        self._attempts[kind] = attempt

    def _is_ours(self, record: storage.Ceremony) -> bool:
        root, _ = self._custody.root()
        with root.view() as secret:
            expected = pending_mac(secret, record.attempt, record.pending)
        return is_equal(expected, record.pending_mac)

    async def _submit(self, decide: Callable[[View], T], inbound: Inbound, op: str = "", kind: str = "") -> T:
        draft = draft_of(inbound, op, f"sys/{kind}") if op else None
        return (await self._pipeline.submit(Work(decide, draft, inbound.deadline, always=True))).value


def _finding(kind: str) -> Callable[[View], Standing | None]:
    return lambda view: ceremony_decisions.find(view, kind)


def _call(inbound: Inbound) -> str:
    return inbound.idempotency_key or inbound.request_id


def _op(verb: str, kind: str) -> str:
    return verb + "".join(word.capitalize() for word in kind.split("-"))
