"""The part of LeaseService that is about database roles, and the credentials that are made from them."""

from __future__ import annotations

from typing import Any

from services.lease.calls.list_names import list_names
from services.lease.connections import database_roles
from services.lease.connections.server_cache import Stored
from services.lease.credentials.issue import Issuer
from services.lease.guarded_call import Calls
from services.lease.messages import moment
from strongbox import paths
from strongbox.access.guard import Caller
from strongbox.errors import DependencyDown, StrongBoxError
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease.v1 import lease_service_pb2_grpc as rpc
from strongbox.lease_records import counters
from strongbox.rpc.request_context import inbound_of
from strongbox.store import keyspace
from strongbox.store.decisions.view import View


class RoleCalls(rpc.LeaseServiceServicer):
    """Handlers; `LeaseServicer` puts them together with the others."""

    _calls: Calls
    _issuer: Issuer

    async def IssueCredential(
        self, request: pb.IssueCredentialRequest, context: Any
    ) -> pb.IssueCredentialResponse:
        """Make a database role; its password is in this answer and nowhere else."""
        issued = await self._issuer.issue(inbound_of(context), request.role)
        record = issued.record
        return pb.IssueCredentialResponse(
            username=record.username,
            password=issued.password,
            lease=pb.CredentialLease(
                id=record.id,
                ttl=max(0, (record.expires_ms - issued.now_ms + 500) // 1000),
                expires_at=moment(record.expires_ms),
                renewable=record.expires_ms < record.max_expires_ms,
            ),
        )

    async def WritePostgresRole(
        self, request: pb.WritePostgresRoleRequest, context: Any
    ) -> pb.WritePostgresRoleResponse:
        """Make or replace a database role, after looking for its template in the database."""
        record, inbound = database_roles.parse(request), inbound_of(context)
        op, path = "WritePostgresRole", database_roles.policy_path(record.name)

        def where(view: View, caller: Caller) -> Stored:
            caller.require("write", path)
            return database_roles.connection_of(view, self._calls.guard.lookup, record)

        found = await self._calls.allowed(inbound, where)
        if isinstance(found, StrongBoxError):
            raise await self._calls.refuse(inbound, op, path, found)
        try:
            await self._issuer.require_template(inbound, found, record.template_role)
        except StrongBoxError as error:
            raise await self._calls.refuse(inbound, op, path, error) from None

        def decide(view: View, caller: Caller) -> database_roles.Record:
            caller.require("write", path)
            if (
                database_roles.connection_of(view, self._calls.guard.lookup, record).revision
                != found.revision
            ):
                raise DependencyDown("the connection was changed meanwhile")
            return database_roles.write(view, self._calls.guard.lookup, record)

        await self._calls.act(inbound, op, path, decide)
        return pb.WritePostgresRoleResponse(**_role_fields(record))

    async def ReadPostgresRole(
        self, request: pb.ReadPostgresRoleRequest, context: Any
    ) -> pb.ReadPostgresRoleResponse:
        """A database role, and how many credentials made from it live."""
        name = paths.require_name(request.name, "database role")
        path = database_roles.policy_path(name)

        def decide(view: View, caller: Caller) -> tuple[database_roles.Record, int]:
            caller.require("read", path)
            record = database_roles.read(view, self._calls.guard.lookup, name)
            return record, counters.count(view, counters.role_key(name))

        done = await self._calls.act(inbound_of(context), "ReadPostgresRole", path, decide)
        record, live = done.value
        return pb.ReadPostgresRoleResponse(**_role_fields(record), live_leases=live)

    async def DeletePostgresRole(
        self, request: pb.DeletePostgresRoleRequest, context: Any
    ) -> pb.DeletePostgresRoleResponse:
        """Remove a database role; its credentials live on."""
        name = paths.require_name(request.name, "database role")
        path = database_roles.policy_path(name)

        def decide(view: View, caller: Caller) -> None:
            caller.require("delete", path)
            database_roles.delete(view, self._calls.guard.lookup, name)

        await self._calls.act(inbound_of(context), "DeletePostgresRole", path, decide)
        return pb.DeletePostgresRoleResponse(name=name)

    async def ListPostgresRoles(
        self, request: pb.ListPostgresRolesRequest, context: Any
    ) -> pb.ListPostgresRolesResponse:
        """Names of the database roles that the caller may read."""
        names, token = await list_names(
            self._calls, inbound_of(context), "ListPostgresRoles", database_roles.policy_path,
            keyspace.POSTGRES_ROLES, request,
        )  # fmt: skip
        return pb.ListPostgresRolesResponse(names=names, next_page_token=token)


def _role_fields(record: database_roles.Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "connection": record.connection,
        "template_role": record.template_role,
        "default_ttl": record.default_ttl_s,
        "max_ttl": record.max_ttl_s,
        "max_leases": record.max_leases,
    }
