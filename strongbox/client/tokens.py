"""Tokens: the caller's own, and others by their accessors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from strongbox.client.conversions import to_duration
from strongbox.client.transport import Wire
from strongbox.errors import InvalidInput

Duration = str | int | None


class Tokens:
    """Making, finding and ending tokens. Durations are whole seconds, or text such as "90s" or "1h"."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = AuthServiceStub(wire.channel)

    def create(
        self,
        policies: Sequence[str] = (),
        *,
        ttl: Duration = None,
        max_ttl: Duration = None,
        period: Duration = None,
        display_name: str = "",
        num_uses: int = 0,
        orphan: bool = False,
        no_default: bool = False,
    ) -> pb.CreateTokenResponse:
        """Make a child of the caller's token; the answer is the only place where it is in clear.

        `num_uses`: how many requests it is good for; 0: not limited.
        """
        request = pb.CreateTokenRequest(
            policies=policies, ttl=to_duration(ttl), max_ttl=to_duration(max_ttl), period=to_duration(period),
            display_name=display_name, num_uses=num_uses, orphan=orphan, no_default=no_default,
        )  # fmt: skip
        return self._wire.call(self._stub.CreateToken, request)

    def lookup(self, accessor: str) -> pb.LookupTokenResponse:
        """Everything about a token but the token itself."""
        return self._wire.call(self._stub.LookupToken, pb.LookupTokenRequest(accessor=_named(accessor)))

    def lookup_self(self) -> pb.LookupSelfResponse:
        """The caller's own token."""
        return self._wire.call(self._stub.LookupSelf, pb.LookupSelfRequest())

    def renew(self, accessor: str, increment: Duration = None) -> pb.RenewTokenResponse:
        """Move a token's expiry."""
        request = pb.RenewTokenRequest(accessor=_named(accessor), increment=to_duration(increment))
        return self._wire.call(self._stub.RenewToken, request)

    def renew_self(self, increment: Duration = None) -> pb.RenewSelfResponse:
        """Move the expiry of the caller's own token."""
        return self._wire.call(self._stub.RenewSelf, pb.RenewSelfRequest(increment=to_duration(increment)))

    def revoke(self, accessor: str) -> pb.RevokeTokenResponse:
        """Revoke a token and its children, with their leases. Revoking it again succeeds."""
        return self._wire.call(self._stub.RevokeToken, pb.RevokeTokenRequest(accessor=_named(accessor)))

    def revoke_self(self) -> pb.RevokeSelfResponse:
        """Revoke the caller's own token and its children."""
        return self._wire.call(self._stub.RevokeSelf, pb.RevokeSelfRequest())

    def list(self) -> Iterator[str]:
        """Accessors of live tokens, page by page as they are asked for."""
        token = ""
        while True:
            page = self._wire.call(self._stub.ListTokens, pb.ListTokensRequest(page_token=token))
            yield from page.accessors
            token = page.next_page_token
            if not token:
                return


def _named(accessor: str) -> str:
    # In REST "self" stands for the caller's own token; in gRPC there are calls for that.
    if not accessor or accessor == "self":
        raise InvalidInput("an accessor is needed")
    return accessor
