"""Users: names with passwords."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from strongbox.client.conversions import to_duration
from strongbox.client.transport import Wire
from strongbox.paths import require_name


class Users:
    """Who logs in with a password."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = AuthServiceStub(wire.channel)

    def login(self, name: str, password: str) -> pb.LoginUserResponse:
        """A token, which is not used by itself (`StrongBox.use_token`).

        Raises Unauthenticated, RateLimited.
        """
        request = pb.LoginUserRequest(name=require_name(name, "user"), password=password)
        return self._wire.call(self._stub.LoginUser, request, slow=True)

    def write(
        self,
        name: str,
        policies: Sequence[str] = (),
        *,
        password: str | None = None,
        token_ttl: str | int | None = None,
    ) -> pb.WriteUserResponse:
        """Make or replace a user; without a password the one there is stays."""
        request = pb.WriteUserRequest(
            name=require_name(name, "user"), password=password, policies=policies,
            token_ttl=to_duration(token_ttl),
        )  # fmt: skip
        return self._wire.call(self._stub.WriteUser, request, slow=True)

    def read(self, name: str) -> pb.ReadUserResponse:
        """A user, without anything of his password."""
        return self._wire.call(self._stub.ReadUser, pb.ReadUserRequest(name=require_name(name, "user")))

    def delete(self, name: str) -> pb.DeleteUserResponse:
        """Remove a user; tokens that he has live on."""
        return self._wire.call(self._stub.DeleteUser, pb.DeleteUserRequest(name=require_name(name, "user")))

    def list(self) -> Iterator[str]:
        """Names of users, page by page as they are asked for."""
        token = ""
        while True:
            page = self._wire.call(self._stub.ListUsers, pb.ListUsersRequest(page_token=token))
            yield from page.names
            token = page.next_page_token
            if not token:
                return
