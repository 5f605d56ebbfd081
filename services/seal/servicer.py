"""SealService on the wire."""

from __future__ import annotations

from typing import Any

import grpc.aio

from services.seal import initialise
from services.seal.health import Health
from services.seal.rebirth import Rebirth
from services.seal.sealing import Sealing
from services.seal.unsealing import Progress, Unsealing, parse_share
from strongbox.clock import Clock
from strongbox.errors import InvalidInput
from strongbox.rpc.inbound import Inbound, inbound_of
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.seal.v1 import seal_service_pb2_grpc as rpc
from strongbox.store.pipeline import Pipeline, Work
from strongbox.trail.outbox import draft_of
from strongbox.trail.slots import Slots

Context = grpc.aio.ServicerContext[Any, Any]


class SealServicer(rpc.SealServiceServicer):
    """Init, unseal, seal, health."""

    def __init__(
        self,
        pipeline: Pipeline,
        clock: Clock,
        unsealing: Unsealing,
        sealing: Sealing,
        health: Health,
        slots: Slots,
        rebirth: Rebirth,
    ) -> None:
        self._pipeline, self._clock = pipeline, clock
        self._unsealing, self._sealing, self._health = unsealing, sealing, health
        self._slots, self._rebirth = slots, rebirth

    async def Initialize(self, request: pb.InitializeRequest, context: Context) -> pb.InitializeResponse:
        """Make the cluster; the shares and the root token are in this answer and nowhere else."""
        inbound = inbound_of(context)
        shares = request.shares if request.HasField("shares") else initialise.DEFAULT_SHARES
        threshold = request.threshold if request.HasField("threshold") else initialise.DEFAULT_THRESHOLD
        origin = initialise.conceive(shares, threshold, self._clock.now_ms())
        draft = draft_of(inbound, "Initialize", "sys/init")
        work = Work(lambda view: initialise.found(view, origin), draft, inbound.deadline, always=True)
        await self._pipeline.submit(work)
        return pb.InitializeResponse(
            shares=[share.encode() for share in origin.shares],
            threshold=origin.threshold,
            root_token=origin.root_token,
        )

    async def Unseal(self, request: pb.UnsealRequest, context: Context) -> pb.UnsealResponse:
        """Give a share to the whole cluster, or forget those given; a bad one is refused alone."""
        inbound = inbound_of(context)
        try:
            return _told(await self._unseal(request, inbound))
        except InvalidInput:
            self._slots.count(inbound.client)
            raise

    async def Seal(self, request: pb.SealRequest, context: Context) -> pb.SealResponse:
        """Seal every replica, and say who confirmed."""
        with self._rebirth.answering():
            found = await self._sealing.seal(inbound_of(context))
        return pb.SealResponse(sealed=True, confirmed=found.confirmed, unconfirmed=found.unconfirmed)

    async def GetSealStatus(
        self, request: pb.GetSealStatusRequest, context: Context
    ) -> pb.GetSealStatusResponse:
        """How far unsealing is."""
        return await self._health.status()

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context) -> pb.GetHealthResponse:
        """The cluster as this node sees it."""
        return await self._health.health()

    async def GetReady(self, request: pb.GetReadyRequest, context: Context) -> pb.GetReadyResponse:
        """Whether this node can serve."""
        return await self._health.require_ready()

    async def _unseal(self, request: pb.UnsealRequest, inbound: Inbound) -> Progress:
        share = parse_share(request.share)
        if request.reset:
            return await self._unsealing.reset(share, inbound)
        return await self._unsealing.give(share, inbound)


def _told(progress: Progress) -> pb.UnsealResponse:
    return pb.UnsealResponse(
        sealed=progress.sealed,
        progress=f"{progress.given}/{progress.threshold}",
        threshold=progress.threshold,
        nonce=progress.nonce,
    )
