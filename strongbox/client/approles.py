"""AppRoles: how machines log in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from strongbox.client.conversions import to_duration
from strongbox.client.transport import Wire
from strongbox.paths import require_name

Duration = str | int | None


class AppRoles:
    """Roles with a role id, and secret ids for them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = AuthServiceStub(wire.channel)

    def login(self, role_id: str, secret_id: str) -> pb.LoginAppRoleResponse:
        """A token, which is not used by itself (`StrongBox.use_token`).

        Raises Unauthenticated, RateLimited.
        """
        request = pb.LoginAppRoleRequest(role_id=role_id, secret_id=secret_id)
        return self._wire.call(self._stub.LoginAppRole, request, slow=True)

    def write(
        self,
        name: str,
        policies: Sequence[str] = (),
        *,
        token_ttl: Duration = None,
        token_max_ttl: Duration = None,
        token_num_uses: int = 0,
        secret_id_ttl: Duration = None,
        secret_id_num_uses: int = 0,
        bound_cidrs: Sequence[str] = (),
    ) -> pb.WriteAppRoleResponse:
        """Make or replace a role; its role id stays."""
        request = pb.WriteAppRoleRequest(
            name=_named(name), policies=policies, token_ttl=to_duration(token_ttl),
            token_max_ttl=to_duration(token_max_ttl), token_num_uses=token_num_uses,
            secret_id_ttl=to_duration(secret_id_ttl), secret_id_num_uses=secret_id_num_uses,
            bound_cidrs=bound_cidrs,
        )  # fmt: skip
        return self._wire.call(self._stub.WriteAppRole, request)

    def read(self, name: str) -> pb.ReadAppRoleResponse:
        """A role with its role id."""
        return self._wire.call(self._stub.ReadAppRole, pb.ReadAppRoleRequest(name=_named(name)))

    def delete(self, name: str) -> pb.DeleteAppRoleResponse:
        """Remove a role; its secret ids are invalid from then on."""
        return self._wire.call(self._stub.DeleteAppRole, pb.DeleteAppRoleRequest(name=_named(name)))

    def list(self) -> Iterator[str]:
        """Names of roles, page by page as they are asked for."""
        token = ""
        while True:
            page = self._wire.call(self._stub.ListAppRoles, pb.ListAppRolesRequest(page_token=token))
            yield from page.names
            token = page.next_page_token
            if not token:
                return

    def create_secret_id(
        self, name: str, *, ttl: Duration = None, num_uses: int = 0, bound_cidrs: Sequence[str] = ()
    ) -> pb.CreateSecretIdResponse:
        """Make a secret id; the answer is the only place where it is in clear."""
        request = pb.CreateSecretIdRequest(
            name=_named(name), ttl=to_duration(ttl), num_uses=num_uses, bound_cidrs=bound_cidrs
        )
        return self._wire.call(self._stub.CreateSecretId, request)

    def revoke_secret_id(self, name: str, accessor: str) -> pb.RevokeSecretIdResponse:
        """End a secret id by its accessor. Ending it again succeeds."""
        request = pb.RevokeSecretIdRequest(name=_named(name), accessor=accessor)
        return self._wire.call(self._stub.RevokeSecretId, request)


def _named(name: str) -> str:
    return require_name(name, "approle")
