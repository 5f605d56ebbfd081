"""The fake of AuthService."""

from __future__ import annotations

from typing import Any

from strongbox.auth.v1 import auth_service_pb2 as auth_pb
from strongbox.auth.v1 import auth_service_pb2_grpc as auth_grpc
from strongbox.errors import NotFound, Unauthenticated
from tests.support.fake_strongbox.world import PASSWORD, World, page_of, refuse


class FakeAuth(auth_grpc.AuthServiceServicer):
    """Tokens by accessor, policies by name."""

    def __init__(self, world: World) -> None:
        self.world = world

    def CreateToken(self, request: auth_pb.CreateTokenRequest, context: Any) -> auth_pb.CreateTokenResponse:
        self.world.admit("CreateToken", request, context)
        accessor = f"acc-{len(self.world.accessors)}"
        self.world.accessors.append(accessor)
        return auth_pb.CreateTokenResponse(
            token="sbt_child", accessor=accessor, policies=request.policies, ttl=3600
        )

    def LookupSelf(self, request: Any, context: Any) -> auth_pb.LookupSelfResponse:
        self.world.admit("LookupSelf", request, context)
        return auth_pb.LookupSelfResponse(accessor="own", policies=["root"])

    def LookupToken(self, request: Any, context: Any) -> auth_pb.LookupTokenResponse:
        self.world.admit("LookupToken", request, context)
        if request.accessor not in self.world.accessors:
            refuse(context, NotFound())
        return auth_pb.LookupTokenResponse(accessor=request.accessor, ttl=60)

    def RenewSelf(self, request: Any, context: Any) -> auth_pb.RenewSelfResponse:
        self.world.admit("RenewSelf", request, context)
        return auth_pb.RenewSelfResponse(accessor="own", ttl=60)

    def RenewToken(self, request: Any, context: Any) -> auth_pb.RenewTokenResponse:
        self.world.admit("RenewToken", request, context)
        return auth_pb.RenewTokenResponse(accessor=request.accessor, ttl=60)

    def RevokeSelf(self, request: Any, context: Any) -> auth_pb.RevokeSelfResponse:
        self.world.admit("RevokeSelf", request, context)
        self.world.revoked.append("own")
        return auth_pb.RevokeSelfResponse(accessor="own")

    def RevokeToken(self, request: Any, context: Any) -> auth_pb.RevokeTokenResponse:
        self.world.admit("RevokeToken", request, context)
        self.world.revoked.append(request.accessor)
        return auth_pb.RevokeTokenResponse(accessor=request.accessor)

    def ListTokens(self, request: Any, context: Any) -> auth_pb.ListTokensResponse:
        self.world.admit("ListTokens", request, context)
        names, token = page_of(self.world.accessors, request.page_token, self.world.page)
        return auth_pb.ListTokensResponse(accessors=names, next_page_token=token)

    def WritePolicy(self, request: auth_pb.WritePolicyRequest, context: Any) -> auth_pb.WritePolicyResponse:
        self.world.admit("WritePolicy", request, context)
        self.world.policies[request.name] = list(request.rules)
        return auth_pb.WritePolicyResponse(name=request.name, revision="7")

    def ReadPolicy(self, request: Any, context: Any) -> auth_pb.ReadPolicyResponse:
        self.world.admit("ReadPolicy", request, context)
        if request.name not in self.world.policies:
            refuse(context, NotFound())
        return auth_pb.ReadPolicyResponse(name=request.name, rules=self.world.policies[request.name])

    def DeletePolicy(self, request: Any, context: Any) -> auth_pb.DeletePolicyResponse:
        self.world.admit("DeletePolicy", request, context)
        self.world.policies.pop(request.name, None)
        return auth_pb.DeletePolicyResponse(name=request.name)

    def ListPolicies(self, request: Any, context: Any) -> auth_pb.ListPoliciesResponse:
        self.world.admit("ListPolicies", request, context)
        names, token = page_of(sorted(self.world.policies), request.page_token, self.world.page)
        return auth_pb.ListPoliciesResponse(names=names, next_page_token=token)

    def ExplainAccess(self, request: Any, context: Any) -> auth_pb.ExplainAccessResponse:
        self.world.admit("ExplainAccess", request, context)
        allowed = request.capability == "read"
        return auth_pb.ExplainAccessResponse(
            allowed=allowed, policy="app", rule="secret/app/*", reason="so it is",
            missing="" if allowed else request.capability,
        )  # fmt: skip

    def WriteUser(self, request: Any, context: Any) -> auth_pb.WriteUserResponse:
        self.world.admit("WriteUser", request, context)
        return auth_pb.WriteUserResponse(name=request.name, revision="3")

    def ReadUser(self, request: Any, context: Any) -> auth_pb.ReadUserResponse:
        self.world.admit("ReadUser", request, context)
        return auth_pb.ReadUserResponse(name=request.name, policies=["app"])

    def DeleteUser(self, request: Any, context: Any) -> auth_pb.DeleteUserResponse:
        self.world.admit("DeleteUser", request, context)
        return auth_pb.DeleteUserResponse(name=request.name)

    def ListUsers(self, request: Any, context: Any) -> auth_pb.ListUsersResponse:
        self.world.admit("ListUsers", request, context)
        names, token = page_of(["a", "b", "c"], request.page_token, self.world.page)
        return auth_pb.ListUsersResponse(names=names, next_page_token=token)

    def LoginUser(self, request: Any, context: Any) -> auth_pb.LoginUserResponse:
        self.world.admit("LoginUser", request, context, open_to_all=True)
        if request.password != PASSWORD:
            refuse(context, Unauthenticated("the login was refused"))
        return auth_pb.LoginUserResponse(token="sb.login", accessor="acc")

    def WriteAppRole(self, request: Any, context: Any) -> auth_pb.WriteAppRoleResponse:
        self.world.admit("WriteAppRole", request, context)
        return auth_pb.WriteAppRoleResponse(name=request.name, role_id="role-id")

    def ReadAppRole(self, request: Any, context: Any) -> auth_pb.ReadAppRoleResponse:
        self.world.admit("ReadAppRole", request, context)
        return auth_pb.ReadAppRoleResponse(name=request.name, role_id="role-id")

    def DeleteAppRole(self, request: Any, context: Any) -> auth_pb.DeleteAppRoleResponse:
        self.world.admit("DeleteAppRole", request, context)
        return auth_pb.DeleteAppRoleResponse(name=request.name)

    def ListAppRoles(self, request: Any, context: Any) -> auth_pb.ListAppRolesResponse:
        self.world.admit("ListAppRoles", request, context)
        names, token = page_of(["a", "b", "c"], request.page_token, self.world.page)
        return auth_pb.ListAppRolesResponse(names=names, next_page_token=token)

    def CreateSecretId(self, request: Any, context: Any) -> auth_pb.CreateSecretIdResponse:
        self.world.admit("CreateSecretId", request, context)
        return auth_pb.CreateSecretIdResponse(secret_id="sbs.x", accessor="acc")

    def RevokeSecretId(self, request: Any, context: Any) -> auth_pb.RevokeSecretIdResponse:
        self.world.admit("RevokeSecretId", request, context)
        return auth_pb.RevokeSecretIdResponse(accessor=request.accessor)

    def LoginAppRole(self, request: Any, context: Any) -> auth_pb.LoginAppRoleResponse:
        self.world.admit("LoginAppRole", request, context, open_to_all=True)
        return auth_pb.LoginAppRoleResponse(token="sb.login", accessor="acc")

    def WriteKubernetesConfig(self, request: Any, context: Any) -> auth_pb.WriteKubernetesConfigResponse:
        self.world.admit("WriteKubernetesConfig", request, context)
        return auth_pb.WriteKubernetesConfigResponse(host=request.host)

    def ReadKubernetesConfig(self, request: Any, context: Any) -> auth_pb.ReadKubernetesConfigResponse:
        self.world.admit("ReadKubernetesConfig", request, context)
        return auth_pb.ReadKubernetesConfigResponse(host="https://a")

    def WriteKubernetesRole(self, request: Any, context: Any) -> auth_pb.WriteKubernetesRoleResponse:
        self.world.admit("WriteKubernetesRole", request, context)
        return auth_pb.WriteKubernetesRoleResponse(name=request.name)

    def ReadKubernetesRole(self, request: Any, context: Any) -> auth_pb.ReadKubernetesRoleResponse:
        self.world.admit("ReadKubernetesRole", request, context)
        return auth_pb.ReadKubernetesRoleResponse(name=request.name)

    def DeleteKubernetesRole(self, request: Any, context: Any) -> auth_pb.DeleteKubernetesRoleResponse:
        self.world.admit("DeleteKubernetesRole", request, context)
        return auth_pb.DeleteKubernetesRoleResponse(name=request.name)

    def ListKubernetesRoles(self, request: Any, context: Any) -> auth_pb.ListKubernetesRolesResponse:
        self.world.admit("ListKubernetesRoles", request, context)
        names, token = page_of(["a", "b", "c"], request.page_token, self.world.page)
        return auth_pb.ListKubernetesRolesResponse(names=names, next_page_token=token)

    def LoginKubernetes(self, request: Any, context: Any) -> auth_pb.LoginKubernetesResponse:
        self.world.admit("LoginKubernetes", request, context, open_to_all=True)
        return auth_pb.LoginKubernetesResponse(token="sb.login", accessor="acc")
