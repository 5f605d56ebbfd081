"""Each RPC of auth over native gRPC, through the gateway: what is promised when all is well."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api_server import ApiServer
from tests.support.clients import GrpcClient, Patience
from tests.support.cluster import Cluster
from tests.support.coverage import Fresh, all_pages, covers
from tests.support.expect import refused

pytestmark = pytest.mark.cluster


@covers("CreateToken", "LookupSelf", "RenewSelf", "RevokeSelf")
def test_a_token_knows_renews_and_ends_itself(native: GrpcClient, cluster: Cluster) -> None:
    made = native.call("CreateToken", policies=["default"], ttl={"string_value": "60s"}, display_name="me")
    assert (made.ttl, made.renewable, list(made.policies)) == (60, True, ["default"])
    with cluster.grpc(made.token, 2) as own:
        told = own.call("LookupSelf")
        assert (told.accessor, told.display_name) == (made.accessor, "me")
        assert 0 < told.ttl <= 60
        assert own.call("RenewSelf", increment={"number_value": 120}).ttl in (119, 120)
        assert own.call("RevokeSelf").accessor == made.accessor
        refused("UNAUTHENTICATED/UNAUTHENTICATED", own.call, "LookupSelf")


@covers("LookupToken", "RenewToken", "RevokeToken", "ListTokens")
def test_tokens_are_managed_by_their_accessors(native: GrpcClient, cluster: Cluster) -> None:
    made = native.call("CreateToken", policies=["default"])
    assert native.call("LookupToken", accessor=made.accessor).accessor == made.accessor
    assert made.accessor in all_pages(native, "ListTokens", "accessors", page_size=2)
    assert native.call("RenewToken", accessor=made.accessor, increment={"string_value": "2h"}).ttl > 3600
    for _ in range(2):  # revoking the revoked succeeds
        assert native.call("RevokeToken", accessor=made.accessor).accessor == made.accessor
    refused("NOT_FOUND", native.call, "LookupToken", accessor=made.accessor)
    with cluster.grpc(made.token) as dead:
        refused("UNAUTHENTICATED", dead.call, "LookupSelf")


@covers("WritePolicy", "ReadPolicy", "DeletePolicy", "ListPolicies")
def test_policies_are_written_read_listed_and_deleted(native: GrpcClient, fresh: Fresh) -> None:
    name = fresh("Policy")
    rules = [{"path": "secret/x/*", "capabilities": ["read", "list"]}]
    assert native.call("WritePolicy", name=name, rules=rules).name == name
    read = native.call("ReadPolicy", name=name)
    assert [(rule.path, sorted(rule.capabilities)) for rule in read.rules] == [
        ("secret/x/*", ["list", "read"])
    ]
    assert name in all_pages(native, "ListPolicies", "names", page_size=1)
    refused("INVALID_ARGUMENT", native.call, "WritePolicy", name=name.upper(), rules=rules)
    native.call("DeletePolicy", name=name)
    refused("NOT_FOUND", native.call, "ReadPolicy", name=name)


@covers("ExplainAccess")
def test_what_decides_is_explained(native: GrpcClient, cluster: Cluster, fresh: Fresh) -> None:
    name = fresh("explained")
    rules = [
        {"path": "secret/x/*", "capabilities": ["read"]},
        {"path": "secret/x/closed", "capabilities": ["deny"]},
    ]
    native.call("WritePolicy", name=name, rules=rules)
    made = native.call("CreateToken", policies=[name])

    def told(path: str, capability: str, **whom: Any) -> tuple[bool, str, str, str]:
        answer = native.call("ExplainAccess", path=path, capability=capability, **whom)
        assert answer.reason
        return answer.allowed, answer.policy, answer.rule, answer.missing

    for whom in ({"accessor": made.accessor}, {"policies": [name, "default"]}):
        assert told("secret/x/y", "read", **whom) == (True, name, "secret/x/*", "")
        assert told("secret/x/y", "write", **whom) == (False, name, "secret/x/*", "write")
        assert told("secret/x/closed", "read", **whom) == (False, name, "secret/x/closed", "")
        assert told("secret/z", "read", **whom) == (False, "", "", "read")
    with cluster.grpc(made.token) as small:
        refused(
            "PERMISSION_DENIED", small.call, "ExplainAccess", policies=[name], path="a", capability="read"
        )
    refused("NOT_FOUND", native.call, "ExplainAccess", accessor="A" * 24, path="secret/a", capability="read")


@covers("WriteUser", "ReadUser", "DeleteUser", "ListUsers", "LoginUser")
def test_a_user_is_written_logs_in_and_is_removed(native: GrpcClient, cluster: Cluster, fresh: Fresh) -> None:
    name, password = fresh("User"), "correct horse battery staple"
    native.call(
        "WriteUser", name=name, password=password, policies=["default"], token_ttl={"number_value": 60}
    )
    read = native.call("ReadUser", name=name)
    assert (read.name, list(read.policies), read.token_ttl, read.failures) == (name, ["default"], 60, 0)
    assert name in all_pages(native, "ListUsers", "names", page_size=1)
    with cluster.grpc("", 2, Patience()) as anybody:
        made = anybody.call("LoginUser", name=name, password=password)
        assert (made.ttl, made.renewable, list(made.policies), made.parent) == (60, True, ["default"], "")
        for wrong in ({"name": name, "password": "wrong"}, {"name": fresh("Nobody"), "password": password}):
            refusal = refused("UNAUTHENTICATED/UNAUTHENTICATED", anybody.call, "LoginUser", **wrong)
            assert refusal.message == "the login was refused"
    with cluster.grpc(made.token, 0, Patience()) as own:
        assert own.call("LookupSelf").display_name == f"user {name}"
    refused("INVALID_ARGUMENT", native.call, "WriteUser", name=name.upper(), password=password)
    native.call("DeleteUser", name=name)
    refused("NOT_FOUND", native.call, "ReadUser", name=name)


@covers(
    "WriteAppRole", "ReadAppRole", "DeleteAppRole", "ListAppRoles", "CreateSecretId", "RevokeSecretId",
    "LoginAppRole",
)  # fmt: skip
def test_a_machine_logs_in_with_a_secret_id_until_that_is_revoked(
    native: GrpcClient, cluster: Cluster, fresh: Fresh
) -> None:
    name = fresh("role")
    role_id = native.call("WriteAppRole", name=name, policies=["default"], token_num_uses=1).role_id
    assert native.call("WriteAppRole", name=name, policies=["default"], token_num_uses=1).role_id == role_id
    assert native.call("ReadAppRole", name=name).role_id == role_id
    assert name in all_pages(native, "ListAppRoles", "names", page_size=1)
    secret = native.call("CreateSecretId", name=name)
    with cluster.grpc("", 1, Patience()) as anybody:
        made = anybody.call("LoginAppRole", role_id=role_id, secret_id=secret.secret_id)
        with cluster.grpc(made.token) as own:  # one use, and it is spent
            assert own.call("LookupSelf").accessor == made.accessor
            refused("UNAUTHENTICATED", own.call, "LookupSelf")
        native.call("RevokeSecretId", name=name, accessor=secret.accessor)
        native.call("RevokeSecretId", name=name, accessor=secret.accessor)
        for role, junk in ((role_id, secret.secret_id), (role_id, ""), ("", "x"), ("x" * 600, "\0")):
            refusal = refused("UNAUTHENTICATED", anybody.call, "LoginAppRole", role_id=role, secret_id=junk)
            assert refusal.message == "the login was refused"
    native.call("DeleteAppRole", name=name)
    refused("NOT_FOUND", native.call, "ReadAppRole", name=name)


@covers(
    "WriteKubernetesConfig", "ReadKubernetesConfig", "WriteKubernetesRole", "ReadKubernetesRole",
    "DeleteKubernetesRole", "ListKubernetesRoles", "LoginKubernetes",
)  # fmt: skip
def test_a_pod_logs_in_with_its_service_account(native: GrpcClient, cluster: Cluster, fresh: Fresh) -> None:
    with ApiServer() as server:
        native.call("WriteKubernetesConfig", host=server.host, ca_cert=server.ca_cert)
        told = native.call("ReadKubernetesConfig")
        assert (told.host, told.has_token_reviewer_jwt) == (server.host, False)
        name = fresh("pod")
        native.call(
            "WriteKubernetesRole", name=name, policies=["default"],
            bound_service_account_names=["app"], bound_service_account_namespaces=["team"],
        )  # fmt: skip
        assert list(native.call("ReadKubernetesRole", name=name).bound_service_account_names) == ["app"]
        assert name in all_pages(native, "ListKubernetesRoles", "names", page_size=1)
        with cluster.grpc("", 1, Patience()) as anybody:
            made = anybody.call("LoginKubernetes", role=name, jwt=server.token("team", "app"))
            assert list(made.policies) == ["default"]
            for jwt in (server.token("team", "other"), server.token("other", "app"), "e30.e30.e30", "junk"):
                refused("UNAUTHENTICATED", anybody.call, "LoginKubernetes", role=name, jwt=jwt)
        native.call("DeleteKubernetesRole", name=name)
        refused("NOT_FOUND", native.call, "ReadKubernetesRole", name=name)
