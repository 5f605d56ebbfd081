"""Initialising, unsealing, sealing, the life of the keys, and how the cluster is.

`seal`, `rotate` and `key_status` need a token; rekey and generate-root need key shares and the nonce that
their beginning gives.
"""

from __future__ import annotations

from strongbox.client.transport import Wire
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

    def rotate(self) -> pb.RotateKeysResponse:
        """Begin a new key term; returns when it is in use. Rewrapping goes on in the background."""
        return self._wire.call(self._stub.RotateKeys, pb.RotateKeysRequest(), slow=True)

    def key_status(self) -> pb.GetKeyStatusResponse:
        """The key term in use, and how far rewrapping is."""
        return self._wire.call(self._stub.GetKeyStatus, pb.GetKeyStatusRequest())

    def start_rekey(self, share: str, shares: int = 3, threshold: int = 2) -> pb.StartRekeyResponse:
        """Begin to make `shares` new key shares; the nonce in the answer is for this caller alone."""
        request = pb.StartRekeyRequest(share=share, shares=shares, threshold=threshold)
        return self._wire.call(self._stub.StartRekey, request, slow=True)

    def update_rekey(self, nonce: str, share: str) -> pb.UpdateRekeyResponse:
        """Give a further one of the present shares; the last answer is the only copy of the new ones."""
        request = pb.UpdateRekeyRequest(nonce=nonce, share=share)
        return self._wire.call(self._stub.UpdateRekey, request, slow=True)

    def verify_rekey(self, nonce: str, share: str) -> pb.VerifyRekeyResponse:
        """Give a new share back; with a threshold of them the old shares become invalid."""
        request = pb.VerifyRekeyRequest(nonce=nonce, share=share)
        return self._wire.call(self._stub.VerifyRekey, request, slow=True)

    def cancel_rekey(self, nonce: str) -> pb.CancelRekeyResponse:
        """Forget a rekey."""
        return self._wire.call(self._stub.CancelRekey, pb.CancelRekeyRequest(nonce=nonce), slow=True)

    def start_generate_root(self, share: str) -> pb.StartGenerateRootResponse:
        """Begin to make a root token; the nonce in the answer is for this caller alone."""
        request = pb.StartGenerateRootRequest(share=share)
        return self._wire.call(self._stub.StartGenerateRoot, request, slow=True)

    def update_generate_root(self, nonce: str, share: str) -> pb.UpdateGenerateRootResponse:
        """Give a further share; the last answer has the token, and is its only copy."""
        request = pb.UpdateGenerateRootRequest(nonce=nonce, share=share)
        return self._wire.call(self._stub.UpdateGenerateRoot, request, slow=True)

    def cancel_generate_root(self, nonce: str) -> pb.CancelGenerateRootResponse:
        """Forget a generate-root."""
        request = pb.CancelGenerateRootRequest(nonce=nonce)
        return self._wire.call(self._stub.CancelGenerateRoot, request, slow=True)

    def status(self) -> pb.GetSealStatusResponse:
        """Whether the cluster is sealed, and how far unsealing is."""
        return self._wire.call(self._stub.GetSealStatus, pb.GetSealStatusRequest())

    def health(self) -> pb.GetHealthResponse:
        """The cluster as the gateway's own node sees it."""
        return self._wire.call(self._stub.GetHealth, pb.GetHealthRequest())

    def ready(self) -> pb.GetReadyResponse:
        """Return when that node can serve. Raises Unavailable when not."""
        return self._wire.call(self._stub.GetReady, pb.GetReadyRequest())
