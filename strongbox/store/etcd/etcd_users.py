"""Etcd's users and roles brought in line with the table (`etcd_roles`), whatever they were.

Each step is a change towards the table, so it can be repeated, and two runs at once come to the same end.
Nothing here is atomic: a role gains what it lacks before it loses what it should not have, so that a service
of the new version is not refused meanwhile. Authentication is switched on at the end, and never off.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from etcd3.etcdrpc import auth_pb2
from etcd3.etcdrpc import rpc_pb2 as pb

from strongbox.store.etcd.attempts import Method
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import EtcdError
from strongbox.store.etcd.etcd_roles import ROLES, SUPERUSERS, Permission

_ROOT_ROLE = "root"
_SERVICE = "/etcdserverpb.Auth/"
_USER_ADD = Method(_SERVICE + "UserAdd", pb.AuthUserAddResponse)
_USER_GET = Method(_SERVICE + "UserGet", pb.AuthUserGetResponse, reads=True)
_USER_LIST = Method(_SERVICE + "UserList", pb.AuthUserListResponse, reads=True)
_USER_DELETE = Method(_SERVICE + "UserDelete", pb.AuthUserDeleteResponse)
_GRANT_ROLE = Method(_SERVICE + "UserGrantRole", pb.AuthUserGrantRoleResponse)
_REVOKE_ROLE = Method(_SERVICE + "UserRevokeRole", pb.AuthUserRevokeRoleResponse)
_ROLE_ADD = Method(_SERVICE + "RoleAdd", pb.AuthRoleAddResponse)
_ROLE_GET = Method(_SERVICE + "RoleGet", pb.AuthRoleGetResponse, reads=True)
_ROLE_LIST = Method(_SERVICE + "RoleList", pb.AuthRoleListResponse, reads=True)
_GRANT = Method(_SERVICE + "RoleGrantPermission", pb.AuthRoleGrantPermissionResponse)
_REVOKE = Method(_SERVICE + "RoleRevokePermission", pb.AuthRoleRevokePermissionResponse)
_ENABLE = Method(_SERVICE + "AuthEnable", pb.AuthEnableResponse)
# `options: { no_password: true }` (field 3): these messages are older than the field, and pass it on unread.
_NO_PASSWORD = b"\x1a\x02\x08\x01"
_ALREADY = ("user name already exists", "role name already exists", "is already granted", "is not granted")


class Users:
    """The table's users and roles in one etcd; `etcd` is the operator's, or authentication is still off."""

    def __init__(self, etcd: Etcd, within: float = 30.0) -> None:
        self._etcd, self._end = etcd, time.monotonic() + within

    async def ensure(self) -> None:
        """Make etcd's users and roles those of the table. Raises EtcdError."""
        await self._ensure_users(dict.fromkeys(SUPERUSERS, _ROOT_ROLE) | {name: name for name in ROLES})
        await self._ask(_ENABLE, pb.AuthEnableRequest())

    async def _ensure_users(self, wanted: dict[str, str]) -> None:
        roles = (await self._ask(_ROLE_LIST, pb.AuthRoleListRequest())).roles
        for role in {*wanted.values()} - {*roles}:
            await self._ask(_ROLE_ADD, pb.AuthRoleAddRequest(name=role))
        for role, permissions in ROLES.items():
            await self._ensure_permissions(role, permissions)
        users = (await self._ask(_USER_LIST, pb.AuthUserListRequest())).users
        for user, role in wanted.items():
            if user not in users:
                await self._ask(_USER_ADD, _without_password(user))
            await self._ensure_roles(user, {role})
        for user in {*users} - {*wanted}:  # of an older table: nobody should have its certificate any more
            # A deleted user was seen to go on for 0.13 s, until etcd's next commit to its file; taking its
            # roles away is seen at once.
            await self._ensure_roles(user, set())
            await self._ask(_USER_DELETE, pb.AuthUserDeleteRequest(name=user))

    async def _ensure_roles(self, user: str, wanted: set[str]) -> None:
        roles = set((await self._ask(_USER_GET, pb.AuthUserGetRequest(name=user))).roles)
        for role in wanted - roles:
            await self._ask(_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user=user, role=role))
        for role in roles - wanted:
            await self._ask(_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest(name=user, role=role))

    async def _ensure_permissions(self, role: str, wanted: Iterable[Permission]) -> None:
        told = await self._ask(_ROLE_GET, pb.AuthRoleGetRequest(role=role))
        known = {(one.key, one.range_end): one.permType for one in told.perm}
        asked = {(one.key, one.end): _kind(one) for one in wanted}
        for (key, end), kind in asked.items():
            if known.get((key, end)) != kind:  # granting replaces what is known of the same range
                permission = auth_pb2.Permission(permType=kind, key=key, range_end=end)
                await self._ask(_GRANT, pb.AuthRoleGrantPermissionRequest(name=role, perm=permission))
        for key, end in known.keys() - asked.keys():
            request = pb.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end)
            await self._ask(_REVOKE, request)

    async def _ask(self, method: Method[Any], request: Any) -> Any:
        """One call. Already done is a success: by an attempt whose answer was lost, or by somebody else."""
        try:
            return await self._etcd.caller.ask(method, request, deadline=self._end, idempotent=True)
        except EtcdError as error:
            if not any(text in str(error) for text in _ALREADY):
                raise
            return method.answer()


def _without_password(name: str) -> pb.AuthUserAddRequest:
    request = pb.AuthUserAddRequest(name=name)
    request.MergeFromString(_NO_PASSWORD)
    return request


def _kind(permission: Permission) -> int:
    return int(auth_pb2.Permission.READWRITE if permission.writes else auth_pb2.Permission.READ)
