"""Initialising, unsealing, sealing, and how the cluster is. None but `seal` needs a token."""

from __future__ import annotations

from strongbox.client.wire import Wire
from strongbox.errors import InvalidInput
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.seal.v1.seal_service_pb2_grpc import SealServiceStub


class Seal:
    """The cluster's seal."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = SealServiceStub(wire.channel)

    def init(self, shares: int = 3, threshold: int = 2) -> pb.InitializeResponse:
        """Make keys, `shares` key shares (base64url) and the root token, once in a cluster's life.

        The answer is the only copy of them. Raises AlreadyInitialized.
        """
        request = pb.InitializeRequest(shares=shares, threshold=threshold)
        return self._wire.call(self._stub.Initialize, request, slow=True)

    def unseal(self, share: str, *, reset: bool = False) -> pb.UnsealResponse:
        """Give one key share to the whole cluster; `reset` forgets those given before.

        Raises WrongShare, RepeatedShare (it was given already): neither changes anything.
        """
        if not share:
            raise InvalidInput("a key share is needed")
        return self._wire.call(self._stub.Unseal, pb.UnsealRequest(share=share, reset=reset), slow=True)

    def seal(self) -> pb.SealResponse:
        """Seal every node; says which confirmed."""
        return self._wire.call(self._stub.Seal, pb.SealRequest(), slow=True)

    def status(self) -> pb.GetSealStatusResponse:
        """Whether the cluster is sealed, and how far unsealing is."""
        return self._wire.call(self._stub.GetSealStatus, pb.GetSealStatusRequest())

    def health(self) -> pb.GetHealthResponse:
        """The cluster as the gateway's own node sees it."""
        return self._wire.call(self._stub.GetHealth, pb.GetHealthRequest())

    def ready(self) -> pb.GetReadyResponse:
        """Return when that node can serve. Raises Unavailable when not."""
        return self._wire.call(self._stub.GetReady, pb.GetReadyRequest())
