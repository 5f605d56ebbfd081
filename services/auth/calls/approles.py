"""Calls about AppRoles and their secret ids, and their login."""

from __future__ import annotations

import uuid
from typing import Any

from services.auth import messages, policy_delegation
from services.auth.calls.guarded_call import Acting
from services.auth.logins import approles
from services.auth.logins.approles import AppRoles
from services.auth.logins.login_attempt import Door
from services.auth.logins.login_methods import AppRoleLogins
from services.auth.logins.secret_ids import FreshId, Made, SecretIds
from strongbox import paths
from strongbox.access.guard import Caller, Guard
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.rpc.request_context import inbound_of
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.decisions.view import View


class AppRoleCalls(Acting):
    """AppRoles over the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard, door: Door, secret_ids: SecretIds) -> None:
        Acting.__init__(self, pipeline, guard)
        self._roles, self._secret_ids = AppRoles(guard.lookup), secret_ids
        self._approle_logins = AppRoleLogins(door, self._roles, self._secret_ids)

    async def WriteAppRole(self, request: pb.WriteAppRoleRequest, context: Any) -> pb.WriteAppRoleResponse:
        """Make or replace a role."""
        wanted, fresh = messages.approle_of(request), str(uuid.uuid4())
        done = await self.act(
            context, "WriteAppRole", "write", approles.path_of(wanted.name),
            lambda view, caller: self._roles.write(view, caller, wanted, fresh),
        )  # fmt: skip
        return messages.approle_written(done.value, done.revision)

    async def ReadAppRole(self, request: pb.ReadAppRoleRequest, context: Any) -> pb.ReadAppRoleResponse:
        """A role with its role id."""
        name = paths.require_name(request.name, "approle")
        done = await self.act(
            context, "ReadAppRole", "read", approles.path_of(name),
            lambda view, _: self._roles.read(view, name),
        )  # fmt: skip
        return messages.approle_to_proto(done.value)

    async def DeleteAppRole(self, request: pb.DeleteAppRoleRequest, context: Any) -> pb.DeleteAppRoleResponse:
        """Remove a role; its secret ids are refused from the next login on."""
        name = paths.require_name(request.name, "approle")
        await self.act(
            context, "DeleteAppRole", "delete", approles.path_of(name),
            lambda view, _: self._roles.delete(view, name),
        )  # fmt: skip
        return pb.DeleteAppRoleResponse(name=name)

    async def ListAppRoles(self, request: pb.ListAppRolesRequest, context: Any) -> pb.ListAppRolesResponse:
        """Names of roles in the order of their folded names."""
        page = await self.list_names(
            context, "ListAppRoles", keyspace.APPROLES, approles.path_of(""),
            request.page_size, request.page_token, approles.Record,
        )  # fmt: skip
        return pb.ListAppRolesResponse(names=page.names, next_page_token=page.token)

    async def CreateSecretId(
        self, request: pb.CreateSecretIdRequest, context: Any
    ) -> pb.CreateSecretIdResponse:
        """Make a secret id; it is in this answer and nowhere else."""
        name, asked = paths.require_name(request.name, "approle"), messages.narrowed_of(request)
        fresh = FreshId.make()

        def decide(view: View, caller: Caller) -> Made:
            role = self._roles.records.require(view, name)
            policy_delegation.require_root_for_root(caller, role.policies)
            return self._secret_ids.make(view, role, asked, fresh)

        done = await self.act(context, "CreateSecretId", "write", approles.secret_id_path(name), decide)
        return messages.secret_id_to_proto(done.value, fresh.secret_id)

    async def RevokeSecretId(
        self, request: pb.RevokeSecretIdRequest, context: Any
    ) -> pb.RevokeSecretIdResponse:
        """End a secret id; ending one that has ended succeeds."""
        name, accessor = paths.require_name(request.name, "approle"), request.accessor

        def decide(view: View, _: Caller) -> None:
            self._secret_ids.revoke(view, self._roles.records.require(view, name), accessor)

        await self.act(context, "RevokeSecretId", "delete", approles.secret_id_path(name), decide)
        return pb.RevokeSecretIdResponse(accessor=accessor)

    async def LoginAppRole(self, request: pb.LoginAppRoleRequest, context: Any) -> pb.LoginAppRoleResponse:
        """A token for a role id and a secret id."""
        login = await self._approle_logins.login(inbound_of(context), request.role_id, request.secret_id)
        return pb.LoginAppRoleResponse(**messages.login_to_proto(login))
