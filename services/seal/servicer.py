"""SealService on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from services.seal.ceremonies.ceremony_decisions import GENERATE_ROOT, REKEY
from services.seal.ceremonies.ceremony_exchange import Ceremonies, Step
from services.seal.custody.process_replacement import Rebirth
from services.seal.key_terms.rotate import KeyStatus, Rotation
from services.seal.status.health import Health
from services.seal.unsealing import initialize
from services.seal.unsealing.seal_cluster import Sealing
from services.seal.unsealing.share_exchange import Progress, Unsealing, parse_share
from services.seal.worker_thread import Computing
from strongbox.audit_outbox.outbox import draft_of
from strongbox.audit_outbox.refusal_counts import Slots
from strongbox.clock import Clock
from strongbox.errors import InvalidInput, PermissionDenied
from strongbox.rpc.request_context import Inbound, inbound_of
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.seal.v1 import seal_service_pb2_grpc as rpc
from strongbox.store.decisions.pipeline import Pipeline, Work

Context = grpc.aio.ServicerContext[Any, Any]


class SealServicer(rpc.SealServiceServicer):
    """Init, unseal, seal, health; rotate, rekey, generate-root."""

    def __init__(
        self,
        pipeline: Pipeline,
        clock: Clock,
        unsealing: Unsealing,
        sealing: Sealing,
        health: Health,
        slots: Slots,
        rebirth: Rebirth,
        rotation: Rotation,
        ceremonies: Ceremonies,
        computing: Computing,
    ) -> None:
        self._rotation, self._ceremonies = rotation, ceremonies
        self._pipeline, self._clock = pipeline, clock
        self._unsealing, self._sealing, self._health = unsealing, sealing, health
        self._slots, self._rebirth = slots, rebirth
        self._computing = computing

    async def Initialize(self, request: pb.InitializeRequest, context: Context) -> pb.InitializeResponse:
        """Make the cluster; the shares and the root token are in this answer and nowhere else."""
        inbound = inbound_of(context)
        shares = request.shares if request.HasField("shares") else initialize.DEFAULT_SHARES
        threshold = request.threshold if request.HasField("threshold") else initialize.DEFAULT_THRESHOLD
        initialize.require_numbers(shares, threshold)
        # Anybody may ask, and many shares take half a second to compute: so not if there is a cluster
        # already.
        await self._pipeline.submit(Work(initialize.require_none, None, inbound.deadline, always=True))
        origin = await self._computing.run(
            inbound.deadline, initialize.conceive, shares, threshold, self._clock.now_ms()
        )
        draft = draft_of(inbound, "Initialize", "sys/init")
        work = Work(lambda view: initialize.found(view, origin), draft, inbound.deadline, always=True)
        await self._pipeline.submit(work)
        return pb.InitializeResponse(
            shares=[share.encode() for share in origin.shares],
            threshold=origin.threshold,
            root_token=origin.root_token,
        )

    async def Unseal(self, request: pb.UnsealRequest, context: Context) -> pb.UnsealResponse:
        """Give a share to the whole cluster, or reset the attempt; a bad share changes nothing."""
        inbound = inbound_of(context)
        with self._counting(inbound):
            return _told(await self._unseal(request, inbound))

    async def Seal(self, request: pb.SealRequest, context: Context) -> pb.SealResponse:
        """Seal every replica, and say who confirmed."""
        with self._rebirth.answering():
            found = await self._sealing.seal(inbound_of(context))
        return pb.SealResponse(sealed=True, confirmed=found.confirmed, unconfirmed=found.unconfirmed)

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Context) -> pb.RotateKeysResponse:
        """A new key term; answered when it is in use."""
        told = await self._rotation.rotate(inbound_of(context))
        return pb.RotateKeysResponse(
            term=told.terms.current, installed_at=_installed(told), wraps=told.wraps, rewrap=_rewrap(told)
        )

    async def GetKeyStatus(
        self, request: pb.GetKeyStatusRequest, context: Context
    ) -> pb.GetKeyStatusResponse:
        """The term in use, and how far rewrapping is."""
        told = await self._rotation.status(inbound_of(context))
        return pb.GetKeyStatusResponse(
            term=told.terms.current, installed_at=_installed(told), wraps=told.wraps, rewrap=_rewrap(told),
            terms=told.terms.all,
        )  # fmt: skip

    async def StartRekey(self, request: pb.StartRekeyRequest, context: Context) -> pb.StartRekeyResponse:
        """Begin to make new key shares."""
        inbound = inbound_of(context)
        shares = request.shares if request.HasField("shares") else initialize.DEFAULT_SHARES
        threshold = request.threshold if request.HasField("threshold") else initialize.DEFAULT_THRESHOLD
        step = await self._start(REKEY, request.share, inbound, (shares, threshold))
        return pb.StartRekeyResponse(
            nonce=step.nonce, progress=step.progress, complete=step.complete, shares=step.made,
            threshold=step.made_threshold or step.threshold,
        )  # fmt: skip

    async def UpdateRekey(self, request: pb.UpdateRekeyRequest, context: Context) -> pb.UpdateRekeyResponse:
        """Give a further present share; the call that completes gets the new ones."""
        step = await self._update(REKEY, request.nonce, request.share, inbound_of(context))
        return pb.UpdateRekeyResponse(
            nonce=step.nonce, progress=step.progress, complete=step.complete, shares=step.made,
            threshold=step.made_threshold or step.threshold,
        )  # fmt: skip

    async def VerifyRekey(self, request: pb.VerifyRekeyRequest, context: Context) -> pb.VerifyRekeyResponse:
        """Give a new share back; a threshold of them replaces the old ones."""
        inbound = inbound_of(context)
        with self._counting(inbound):
            await self._ceremonies.require_open(inbound)
            step = await self._ceremonies.verify(request.nonce, parse_share(request.share), inbound)
        return pb.VerifyRekeyResponse(
            nonce=step.nonce, progress=step.progress, complete=step.complete, threshold=step.threshold
        )

    async def CancelRekey(self, request: pb.CancelRekeyRequest, context: Context) -> pb.CancelRekeyResponse:
        """Cancel a rekey; needs its nonce."""
        inbound = inbound_of(context)
        with self._counting(inbound):
            await self._ceremonies.cancel(REKEY, request.nonce, inbound)
        return pb.CancelRekeyResponse()

    async def StartGenerateRoot(
        self, request: pb.StartGenerateRootRequest, context: Context
    ) -> pb.StartGenerateRootResponse:
        """Begin to make a root token."""
        step = await self._start(GENERATE_ROOT, request.share, inbound_of(context), (0, 0))
        return pb.StartGenerateRootResponse(
            nonce=step.nonce, progress=step.progress, complete=step.complete, threshold=step.threshold,
            root_token="".join(step.made),
        )  # fmt: skip

    async def UpdateGenerateRoot(
        self, request: pb.UpdateGenerateRootRequest, context: Context
    ) -> pb.UpdateGenerateRootResponse:
        """Give a further share; the call that completes gets the root token."""
        step = await self._update(GENERATE_ROOT, request.nonce, request.share, inbound_of(context))
        return pb.UpdateGenerateRootResponse(
            nonce=step.nonce, progress=step.progress, complete=step.complete, threshold=step.threshold,
            root_token="".join(step.made),
        )  # fmt: skip

    async def CancelGenerateRoot(
        self, request: pb.CancelGenerateRootRequest, context: Context
    ) -> pb.CancelGenerateRootResponse:
        """Cancel a generate-root; needs its nonce."""
        inbound = inbound_of(context)
        with self._counting(inbound):
            await self._ceremonies.cancel(GENERATE_ROOT, request.nonce, inbound)
        return pb.CancelGenerateRootResponse()

    async def GetSealStatus(
        self, request: pb.GetSealStatusRequest, context: Context
    ) -> pb.GetSealStatusResponse:
        """Whether this node is sealed, and how far unsealing is."""
        return await self._health.status()

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context) -> pb.GetHealthResponse:
        """The cluster as this node sees it."""
        return await self._health.health()

    async def GetReady(self, request: pb.GetReadyRequest, context: Context) -> pb.GetReadyResponse:
        """Whether this node can serve."""
        return await self._health.require_ready()

    async def _start(self, kind: str, share: str, inbound: Inbound, wanted: tuple[int, int]) -> Step:
        with self._counting(inbound):
            await self._ceremonies.require_open(inbound)
            return await self._ceremonies.start(kind, parse_share(share), inbound, wanted)

    async def _update(self, kind: str, nonce: str, share: str, inbound: Inbound) -> Step:
        with self._counting(inbound):
            await self._ceremonies.require_open(inbound)
            return await self._ceremonies.update(kind, nonce, parse_share(share), inbound)

    @contextlib.contextmanager
    def _counting(self, inbound: Inbound) -> Iterator[None]:
        """Count refusals of callers without a token (strongbox.audit_outbox.refusal_counts)."""
        try:
            yield
        except (InvalidInput, PermissionDenied):
            self._slots.count(inbound.client)
            raise

    async def _unseal(self, request: pb.UnsealRequest, inbound: Inbound) -> Progress:
        share = parse_share(request.share)
        if request.reset:
            return await self._unsealing.reset(share, inbound)
        return await self._unsealing.give(share, inbound)


def _installed(told: KeyStatus) -> Timestamp:
    moment = Timestamp()
    moment.FromMilliseconds(told.terms.installed_ms)
    return moment


def _rewrap(told: KeyStatus) -> pb.Rewrap:
    return pb.Rewrap(done=told.done, total=told.total, passed_over=told.passed_over)


def _told(progress: Progress) -> pb.UnsealResponse:
    return pb.UnsealResponse(
        sealed=progress.sealed,
        progress=f"{progress.given}/{progress.threshold}",
        threshold=progress.threshold,
        nonce=progress.nonce,
    )
