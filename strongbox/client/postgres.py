"""Database credentials, and what they are made from: connections and database roles."""

from __future__ import annotations

from collections.abc import Iterator

from strongbox.client.conversions import to_duration
from strongbox.client.transport import Wire
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease.v1.lease_service_pb2_grpc import LeaseServiceStub
from strongbox.paths import require_name

Duration = str | int | None


class Postgres:
    """Short-lived PostgreSQL credentials. Durations are whole seconds, or text such as "90s" or "1h"."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = LeaseServiceStub(wire.channel)

    def issue(self, role: str) -> pb.IssueCredentialResponse:
        """A new database user; the answer is the only place where its password is."""
        request = pb.IssueCredentialRequest(role=require_name(role, "database role"))
        return self._wire.call(self._stub.IssueCredential, request, slow=True)

    def write_connection(
        self, name: str, *, dsn: str, username: str, password: str, ca: str = ""
    ) -> pb.WritePostgresConnectionResponse:
        """Make or replace a connection, after trying it. `dsn`: a URL without password; `ca`: PEM."""
        request = pb.WritePostgresConnectionRequest(
            name=require_name(name, "connection"), dsn=dsn, username=username, password=password, ca=ca
        )
        return self._wire.call(self._stub.WritePostgresConnection, request, slow=True)

    def read_connection(self, name: str) -> pb.ReadPostgresConnectionResponse:
        """A connection, without its password."""
        request = pb.ReadPostgresConnectionRequest(name=require_name(name, "connection"))
        return self._wire.call(self._stub.ReadPostgresConnection, request)

    def delete_connection(
        self, name: str, *, revoke_leases: bool = False
    ) -> pb.DeletePostgresConnectionResponse:
        """Remove a connection. Raises LiveLeases when credentials live, or are still being revoked."""
        request = pb.DeletePostgresConnectionRequest(
            name=require_name(name, "connection"), revoke_leases=revoke_leases
        )
        return self._wire.call(self._stub.DeletePostgresConnection, request, slow=True)

    def list_connections(self) -> Iterator[str]:
        """Names of connections, page by page as they are asked for."""
        token = ""
        while True:
            request = pb.ListPostgresConnectionsRequest(page_token=token)
            page = self._wire.call(self._stub.ListPostgresConnections, request)
            yield from page.names
            token = page.next_page_token
            if not token:
                return

    def rotate_root(self, name: str) -> pb.RotatePostgresRootResponse:
        """Give the connection's user a password that only StrongBox knows."""
        request = pb.RotatePostgresRootRequest(name=require_name(name, "connection"))
        return self._wire.call(self._stub.RotatePostgresRoot, request, slow=True)

    def inspect(self, connection: str) -> pb.InspectPostgresConnectionResponse:
        """What the connection's user owns in each database that it may enter."""
        request = pb.InspectPostgresConnectionRequest(name=require_name(connection, "connection"))
        return self._wire.call(self._stub.InspectPostgresConnection, request, slow=True)

    def write_role(
        self,
        name: str,
        *,
        connection: str,
        template_role: str,
        default_ttl: Duration = None,
        max_ttl: Duration = None,
        max_leases: int = 0,
    ) -> pb.WritePostgresRoleResponse:
        """Make or replace a database role."""
        request = pb.WritePostgresRoleRequest(
            name=require_name(name, "database role"), connection=connection, template_role=template_role,
            default_ttl=to_duration(default_ttl), max_ttl=to_duration(max_ttl), max_leases=max_leases,
        )  # fmt: skip
        return self._wire.call(self._stub.WritePostgresRole, request)

    def read_role(self, name: str) -> pb.ReadPostgresRoleResponse:
        """A database role."""
        request = pb.ReadPostgresRoleRequest(name=require_name(name, "database role"))
        return self._wire.call(self._stub.ReadPostgresRole, request)

    def delete_role(self, name: str) -> pb.DeletePostgresRoleResponse:
        """Remove a database role; its credentials live on."""
        request = pb.DeletePostgresRoleRequest(name=require_name(name, "database role"))
        return self._wire.call(self._stub.DeletePostgresRole, request)

    def list_roles(self) -> Iterator[str]:
        """Names of database roles, page by page as they are asked for."""
        token = ""
        while True:
            request = pb.ListPostgresRolesRequest(page_token=token)
            page = self._wire.call(self._stub.ListPostgresRoles, request)
            yield from page.names
            token = page.next_page_token
            if not token:
                return
