"""One channel to one gateway: the token with every call, a deadline on every call, our own errors back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc

from strongbox.client.address import Address
from strongbox.errors import InvalidInput
from strongbox.rpc.error_mapping import to_error

# Longer than the gateway's own limits (2 s, and 5 s for calls that are slow): its answer says what happened,
# our own timeout does not.
TIMEOUT, SLOW_TIMEOUT = 4.0, 8.0
OPTIONS = (
    ("grpc.dns_min_time_between_resolutions_ms", 1000),  # a gateway may come back with another address
    ("grpc.enable_retries", 0),  # the gateway retries what may be retried; twice is not safer
    ("grpc.enable_http_proxy", 0),  # a secret goes where the address says and nowhere else
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 << 20),
    # A stream has no deadline, so a gateway that is gone has to be noticed otherwise: within 25 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_TOKEN = re.compile(r"[\x21-\x7e]{1,512}\Z")

Request = TypeVar("Request")
Response = TypeVar("Response")


class Wire:
    """Calls to one gateway. `timeout`: seconds for every call, instead of the usual ones."""

    def __init__(self, address: str, token: str, ca: Path | str | None, timeout: float | None) -> None:
        self.channel = _open(Address.parse(address), ca)
        self._timeout = timeout
        self._metadata: tuple[tuple[str, str], ...] = ()
        self.use(token)

    def use(self, token: str) -> None:
        """Send this token from now on; "" for none. Raises InvalidInput without quoting it."""
        if token and not _TOKEN.match(token):
            raise InvalidInput("this cannot be a token: it is too long, or has white space in it")
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, *, slow: bool = False
    ) -> Response:
        """The answer. Raises a StrongBoxError: the service's own, or Unavailable, DeadlineExceeded …"""
        timeout = self._timeout or (SLOW_TIMEOUT if slow else TIMEOUT)
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as failure:
            # Not chained: gRPC's own text repeats what ours says, with addresses and bytes of the answer.
            raise to_error(failure) from None

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> Iterator[Response]:
        """Answers as they come, for as long as the service has some; a peer that is gone is found by pings.

        Raises as `call`. Close the iterator to end the call.
        """
        call: Any = method(request, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as failure:
            raise to_error(failure) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """End the connection."""
        self.channel.close()


def _open(address: Address, ca: Path | str | None) -> grpc.Channel:
    if not address.tls:
        return grpc.insecure_channel(address.target, options=OPTIONS)
    try:
        roots = Path(ca).read_bytes() if ca else None
    except OSError as error:
        raise InvalidInput(f"the authority's certificate cannot be read: {error.strerror}") from None
    return grpc.secure_channel(address.target, grpc.ssl_channel_credentials(roots), options=OPTIONS)
