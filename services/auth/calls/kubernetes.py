"""Calls about Kubernetes: the configuration, the roles, and their login."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from services.auth import messages
from services.auth.calls.guarded_call import Acting
from services.auth.logins import kubernetes_roles, token_review
from services.auth.logins.kubernetes_roles import CONFIG_PATH, Config, Kubernetes
from services.auth.logins.login_attempt import Door
from services.auth.logins.login_methods import PURPOSE, KubernetesLogins
from services.auth.logins.reviewer_token import OwnReviewer
from services.auth.logins.token_review import Reviewer
from strongbox import paths
from strongbox.access.guard import Caller, Guard
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.crypto.envelope import Dek, WrappedDek, seal_value
from strongbox.errors import InvalidInput
from strongbox.rpc.request_context import inbound_of
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.decisions.view import View
from strongbox.store.envelope_records import to_record


class Keys(Protocol):
    """What is asked of the seal service (strongbox.rpc.key_client.KeyClient)."""

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        """Raises `Sealed`, `DependencyDown`."""

    async def unwrap(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        """Raises `Sealed`, `DependencyDown`, `IntegrityError`."""


class KubernetesCalls(Acting):
    """Kubernetes over the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard, door: Door, keys: Keys, own: OwnReviewer) -> None:
        Acting.__init__(self, pipeline, guard)
        self._kubernetes, self._keys = Kubernetes(guard.lookup, own.is_for), keys
        self._kubernetes_logins = KubernetesLogins(door, self._kubernetes, Reviewer(), keys, own)

    async def WriteKubernetesConfig(
        self, request: pb.WriteKubernetesConfigRequest, context: Any
    ) -> pb.WriteKubernetesConfigResponse:
        """Replace the configuration; the reviewer's token is sealed under a data key of its own."""

        def may_write(view: View, caller: Caller) -> None:
            del view
            caller.require("sudo", CONFIG_PATH)

        # Certificates are parsed, and keys wrapped, only for a caller that may write it.
        await self.allow(context, "WriteKubernetesConfig", CONFIG_PATH, may_write)
        config = Config(
            host=kubernetes_roles.require_host(request.host),
            ca_cert=await asyncio.to_thread(kubernetes_roles.require_authority, request.ca_cert),
        )
        if request.token_reviewer_jwt:
            if not token_review.is_jwt(request.token_reviewer_jwt):
                raise InvalidInput("token_reviewer_jwt is not a signed token")
            dek = Dek.fresh()
            (wrapped,) = await self._keys.wrap([dek])
            secret = request.token_reviewer_jwt.encode()
            sealed = seal_value(dek, wrapped, PURPOSE, CONFIG_PATH, 1, secret)
            config.token_reviewer_jwt.CopyFrom(to_record(sealed))
        await self.act(
            context, "WriteKubernetesConfig", "write", CONFIG_PATH,
            lambda view, caller: self._kubernetes.configure(view, caller, config),
        )  # fmt: skip
        return pb.WriteKubernetesConfigResponse(host=config.host)

    async def ReadKubernetesConfig(
        self, request: pb.ReadKubernetesConfigRequest, context: Any
    ) -> pb.ReadKubernetesConfigResponse:
        """The configuration, without the reviewer's token."""
        del request
        done = await self.act(
            context, "ReadKubernetesConfig", "read", CONFIG_PATH,
            lambda view, _: self._kubernetes.require_config(view),
        )  # fmt: skip
        return pb.ReadKubernetesConfigResponse(
            host=done.value.host,
            ca_cert=done.value.ca_cert,
            has_token_reviewer_jwt=done.value.HasField("token_reviewer_jwt"),
        )

    async def WriteKubernetesRole(
        self, request: pb.WriteKubernetesRoleRequest, context: Any
    ) -> pb.WriteKubernetesRoleResponse:
        """Make or replace a role."""
        wanted = messages.kubernetes_role_of(request)
        done = await self.act(
            context, "WriteKubernetesRole", "write", kubernetes_roles.path_of(wanted.name),
            lambda view, caller: self._kubernetes.write(view, caller, wanted),
        )  # fmt: skip
        return messages.kubernetes_role_written(done.value, done.revision)

    async def ReadKubernetesRole(
        self, request: pb.ReadKubernetesRoleRequest, context: Any
    ) -> pb.ReadKubernetesRoleResponse:
        """A role."""
        name = paths.require_name(request.name, "kubernetes role")
        done = await self.act(
            context, "ReadKubernetesRole", "read", kubernetes_roles.path_of(name),
            lambda view, _: self._kubernetes.read(view, name),
        )  # fmt: skip
        return messages.kubernetes_role_to_proto(done.value)

    async def DeleteKubernetesRole(
        self, request: pb.DeleteKubernetesRoleRequest, context: Any
    ) -> pb.DeleteKubernetesRoleResponse:
        """Remove a role."""
        name = paths.require_name(request.name, "kubernetes role")
        await self.act(
            context, "DeleteKubernetesRole", "delete", kubernetes_roles.path_of(name),
            lambda view, _: self._kubernetes.delete(view, name),
        )  # fmt: skip
        return pb.DeleteKubernetesRoleResponse(name=name)

    async def ListKubernetesRoles(
        self, request: pb.ListKubernetesRolesRequest, context: Any
    ) -> pb.ListKubernetesRolesResponse:
        """Names of roles in the order of their folded names."""
        page = await self.list_names(
            context, "ListKubernetesRoles", keyspace.KUBERNETES_ROLES, kubernetes_roles.path_of(""),
            request.page_size, request.page_token, kubernetes_roles.Role,
        )  # fmt: skip
        return pb.ListKubernetesRolesResponse(names=page.names, next_page_token=page.token)

    async def LoginKubernetes(
        self, request: pb.LoginKubernetesRequest, context: Any
    ) -> pb.LoginKubernetesResponse:
        """A token for a service account's token."""
        login = await self._kubernetes_logins.login(inbound_of(context), request.role, request.jwt)
        return pb.LoginKubernetesResponse(**messages.login_to_proto(login))
