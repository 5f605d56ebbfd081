"""Calls about users, and their login."""

from __future__ import annotations

from typing import Any

from services.auth import messages, policy_delegation
from services.auth.calls.guarded_call import Acting
from services.auth.logins import password_hashing, users
from services.auth.logins.login_attempt import Door
from services.auth.logins.login_methods import UserLogins
from services.auth.logins.password_hashing import Passwords
from services.auth.logins.users import Users, Wanted
from strongbox import paths
from strongbox.access.guard import Guard
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.rpc.request_context import inbound_of
from strongbox.store import keyspace
from strongbox.store.decisions.pipeline import Pipeline


class UserCalls(Acting):
    """Users over the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard, door: Door, hashing: Passwords) -> None:
        Acting.__init__(self, pipeline, guard)
        self._users, self._passwords = Users(guard.lookup), hashing
        self._user_logins = UserLogins(door, self._users, hashing)

    async def WriteUser(self, request: pb.WriteUserRequest, context: Any) -> pb.WriteUserResponse:
        """Make or replace a user. A password is hashed only for a caller that may write the user."""
        wanted = Wanted(
            paths.require_name(request.name, "user"),
            policy_delegation.require_names(request.policies),
            messages.token_ttl_of(request.token_ttl),
        )
        path = users.path_of(wanted.name)
        hashed = None
        if request.HasField("password"):
            await self.allow(context, "WriteUser", path, lambda view, caller: None)
            password = password_hashing.require_new(request.password)
            hashed = await self._passwords.hash(password, inbound_of(context).deadline)
        done = await self.act(
            context, "WriteUser", "write", path,
            lambda view, caller: self._users.write(view, caller, wanted, hashed),
        )  # fmt: skip
        return messages.user_written(done.value, done.revision)

    async def ReadUser(self, request: pb.ReadUserRequest, context: Any) -> pb.ReadUserResponse:
        """A user, without the password's hash."""
        name = paths.require_name(request.name, "user")
        done = await self.act(
            context, "ReadUser", "read", users.path_of(name),
            lambda view, _: self._users.read(view, name),
        )  # fmt: skip
        return messages.user_to_proto(done.value)

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> pb.DeleteUserResponse:
        """Remove a user."""
        name = paths.require_name(request.name, "user")
        await self.act(
            context, "DeleteUser", "delete", users.path_of(name),
            lambda view, _: self._users.delete(view, name),
        )  # fmt: skip
        return pb.DeleteUserResponse(name=name)

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """Names of users in the order of their folded names."""
        page = await self.list_names(
            context, "ListUsers", keyspace.USERS, users.path_of(""),
            request.page_size, request.page_token, users.Record,
        )  # fmt: skip
        return pb.ListUsersResponse(names=page.names, next_page_token=page.token)

    async def LoginUser(self, request: pb.LoginUserRequest, context: Any) -> pb.LoginUserResponse:
        """A token for a name and a password."""
        login = await self._user_logins.login(inbound_of(context), request.name, request.password)
        return pb.LoginUserResponse(**messages.login_to_proto(login))
