"""The fake of SealService."""

from __future__ import annotations

from typing import Any

from strongbox.errors import RepeatedShare, Sealed, WrongShare
from strongbox.seal.v1 import seal_service_pb2 as seal_pb
from strongbox.seal.v1 import seal_service_pb2_grpc as seal_grpc
from tests.support.fake_strongbox.world import SHARES, TOKEN, World, refuse


class FakeSeal(seal_grpc.SealServiceServicer):
    """Two of three shares unseal."""

    def __init__(self, world: World) -> None:
        self.world = world

    def Initialize(self, request: seal_pb.InitializeRequest, context: Any) -> seal_pb.InitializeResponse:
        self.world.admit("Initialize", request, context, open_to_all=True)
        return seal_pb.InitializeResponse(
            shares=SHARES[: request.shares], threshold=request.threshold, root_token=TOKEN
        )

    def Unseal(self, request: seal_pb.UnsealRequest, context: Any) -> seal_pb.UnsealResponse:
        self.world.admit("Unseal", request, context, open_to_all=True)
        if request.share not in SHARES:
            refuse(context, WrongShare())
        if request.reset:
            self.world.progress.clear()
        if self.world.sealed and request.share in self.world.progress:
            refuse(context, RepeatedShare())
        self.world.progress.add(request.share)
        if len(self.world.progress) == 2:
            self.world.sealed = False
        return seal_pb.UnsealResponse(sealed=self.world.sealed, threshold=2, progress=self._progress())

    def Seal(self, request: seal_pb.SealRequest, context: Any) -> seal_pb.SealResponse:
        self.world.admit("Seal", request, context)
        self.world.sealed = True
        return seal_pb.SealResponse(sealed=True, confirmed=["node-1", "node-2"], unconfirmed=["node-3"])

    def RotateKeys(self, request: Any, context: Any) -> seal_pb.RotateKeysResponse:
        self.world.admit("RotateKeys", request, context)
        return seal_pb.RotateKeysResponse(term=2, wraps=5, rewrap=seal_pb.Rewrap(done=0, total=7))

    def GetKeyStatus(self, request: Any, context: Any) -> seal_pb.GetKeyStatusResponse:
        self.world.admit("GetKeyStatus", request, context)
        return seal_pb.GetKeyStatusResponse(term=1, terms=[1])

    def StartRekey(self, request: Any, context: Any) -> seal_pb.StartRekeyResponse:
        self.world.admit("StartRekey", request, context, open_to_all=True)
        return seal_pb.StartRekeyResponse(nonce="n", progress="1/2", threshold=2)

    def UpdateRekey(self, request: Any, context: Any) -> seal_pb.UpdateRekeyResponse:
        self.world.admit("UpdateRekey", request, context, open_to_all=True)
        return seal_pb.UpdateRekeyResponse(nonce="n", progress="2/2", complete=True, shares=["bmV3"])

    def VerifyRekey(self, request: Any, context: Any) -> seal_pb.VerifyRekeyResponse:
        self.world.admit("VerifyRekey", request, context, open_to_all=True)
        return seal_pb.VerifyRekeyResponse(nonce="n", progress="1/2")

    def CancelRekey(self, request: Any, context: Any) -> seal_pb.CancelRekeyResponse:
        self.world.admit("CancelRekey", request, context, open_to_all=True)
        return seal_pb.CancelRekeyResponse()

    def StartGenerateRoot(self, request: Any, context: Any) -> seal_pb.StartGenerateRootResponse:
        self.world.admit("StartGenerateRoot", request, context, open_to_all=True)
        return seal_pb.StartGenerateRootResponse(nonce="n", progress="1/2", threshold=2)

    def UpdateGenerateRoot(self, request: Any, context: Any) -> seal_pb.UpdateGenerateRootResponse:
        self.world.admit("UpdateGenerateRoot", request, context, open_to_all=True)
        return seal_pb.UpdateGenerateRootResponse(nonce="n", complete=True, root_token="sb.root")

    def CancelGenerateRoot(self, request: Any, context: Any) -> seal_pb.CancelGenerateRootResponse:
        self.world.admit("CancelGenerateRoot", request, context, open_to_all=True)
        return seal_pb.CancelGenerateRootResponse()

    def GetSealStatus(self, request: Any, context: Any) -> seal_pb.GetSealStatusResponse:
        self.world.admit("GetSealStatus", request, context, open_to_all=True)
        return seal_pb.GetSealStatusResponse(
            initialized=True, sealed=self.world.sealed, threshold=2, shares=3, progress=self._progress()
        )

    def GetHealth(self, request: Any, context: Any) -> seal_pb.GetHealthResponse:
        self.world.admit("GetHealth", request, context, open_to_all=True)
        if self.world.etcd_is_away:
            return seal_pb.GetHealthResponse(sealed=self.world.sealed, node_id="node-1")
        return seal_pb.GetHealthResponse(
            initialized=True, sealed=self.world.sealed, ready=not self.world.sealed, node_id="node-1"
        )

    def GetReady(self, request: Any, context: Any) -> seal_pb.GetReadyResponse:
        self.world.admit("GetReady", request, context, open_to_all=True)
        if self.world.sealed:
            refuse(context, Sealed())
        return seal_pb.GetReadyResponse(ready=True, node_id="node-1")

    def _progress(self) -> str:
        return f"{len(self.world.progress)}/2"
