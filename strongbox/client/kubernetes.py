"""Kubernetes: service accounts log in with their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from strongbox.client.conversions import to_duration
from strongbox.client.transport import Wire
from strongbox.paths import require_name


class Kubernetes:
    """The API server that reviews tokens, and roles."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = AuthServiceStub(wire.channel)

    def login(self, role: str, jwt: str) -> pb.LoginKubernetesResponse:
        """A token, which is not used by itself (`StrongBox.use_token`).

        Raises Unauthenticated, RateLimited.
        """
        request = pb.LoginKubernetesRequest(role=_named(role), jwt=jwt)
        return self._wire.call(self._stub.LoginKubernetes, request, slow=True)

    def configure(
        self, host: str, ca_cert: str, token_reviewer_jwt: str = ""
    ) -> pb.WriteKubernetesConfigResponse:
        """Say which API server reviews tokens; `ca_cert` in PEM."""
        request = pb.WriteKubernetesConfigRequest(
            host=host, ca_cert=ca_cert, token_reviewer_jwt=token_reviewer_jwt
        )
        return self._wire.call(self._stub.WriteKubernetesConfig, request)

    def config(self) -> pb.ReadKubernetesConfigResponse:
        """The configuration, without the reviewer's token."""
        return self._wire.call(self._stub.ReadKubernetesConfig, pb.ReadKubernetesConfigRequest())

    def write(
        self,
        name: str,
        policies: Sequence[str] = (),
        *,
        service_accounts: Sequence[str],
        namespaces: Sequence[str],
        audience: str = "",
        token_ttl: str | int | None = None,
    ) -> pb.WriteKubernetesRoleResponse:
        """Make or replace a role; `["*"]` for any service account, or for any namespace."""
        request = pb.WriteKubernetesRoleRequest(
            name=_named(name), policies=policies, bound_service_account_names=service_accounts,
            bound_service_account_namespaces=namespaces, audience=audience,
            token_ttl=to_duration(token_ttl),
        )  # fmt: skip
        return self._wire.call(self._stub.WriteKubernetesRole, request)

    def read(self, name: str) -> pb.ReadKubernetesRoleResponse:
        """A role."""
        request = pb.ReadKubernetesRoleRequest(name=_named(name))
        return self._wire.call(self._stub.ReadKubernetesRole, request)

    def delete(self, name: str) -> pb.DeleteKubernetesRoleResponse:
        """Remove a role."""
        request = pb.DeleteKubernetesRoleRequest(name=_named(name))
        return self._wire.call(self._stub.DeleteKubernetesRole, request)

    def list(self) -> Iterator[str]:
        """Names of roles, page by page as they are asked for."""
        token = ""
        while True:
            request = pb.ListKubernetesRolesRequest(page_token=token)
            page = self._wire.call(self._stub.ListKubernetesRoles, request)
            yield from page.names
            token = page.next_page_token
            if not token:
                return


def _named(name: str) -> str:
    return require_name(name, "kubernetes role")
