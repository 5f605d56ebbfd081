"""Kubernetes: a real HTTPS server reviews really signed tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.auth.logins.kubernetes_roles import holder_of
from services.auth.logins.login_methods import NO_REVIEWER
from services.auth.logins.token_review import identity_in
from strongbox.access import token_format as access
from strongbox.access.token_groups import groups_of
from strongbox.errors import DependencyDown, InvalidInput, PermissionDenied, Unauthenticated
from strongbox.store import keyspace
from tests.services.auth.support import AuthService
from tests.support.api_server import REVIEWER, ApiServer

POD = "authentication.kubernetes.io/pod-uid"
BOUND = {"bound_service_account_names": ["app"], "bound_service_account_namespaces": ["team"]}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def auth() -> AuthService:
    return AuthService()


async def configured(auth: AuthService, server: ApiServer, **fields: Any) -> None:
    await auth.call("WriteKubernetesConfig", host=server.host, ca_cert=server.ca_cert, **fields)
    await auth.call("WriteKubernetesRole", name="web", policies=["app"], **BOUND)


async def enter(auth: AuthService, jwt: str, role: str = "web") -> Any:
    return await auth.call("LoginKubernetes", token="", role=role, jwt=jwt)


async def test_a_service_account_logs_in_as_its_role_says(auth: AuthService, server: ApiServer) -> None:
    await configured(auth, server)
    made = await enter(auth, server.token("team", "app"))
    assert list(made.policies) == ["app", "default"]
    assert (await auth.call("LookupSelf", token=made.token)).display_name == "kubernetes team/app"
    assert auth.recorded("LoginKubernetes") == [("auth/kubernetes/roles/web", "ok", "")]


async def test_what_is_not_good_or_not_bound_is_refused_alike(auth: AuthService, server: ApiServer) -> None:
    await configured(auth, server)
    good = server.token("team", "app")
    header, body, signature = good.split(".")
    with ApiServer() as other_cluster:
        foreign = other_cluster.token("team", "app")
    others = [
        server.token("team", "other"), server.token("other", "app"), server.token("team", "app", ttl=-70),
        server.token("team", "app", audience="somebody else"), foreign,
        f"{header}.{body}.{signature[:-4]}AAAA", f"{header}.{body}.", f"e30.{body}.{signature}", "junk", "",
        server.token("team", "app", sub="system:node:team:app"), server.token("team", "app", sub="admin"),
        server.token("team", "app", iss="https://elsewhere"), "a.b.c" * 10_000,
    ]  # fmt: skip
    for jwt in others:
        with pytest.raises(Unauthenticated, match="the login was refused"):
            await enter(auth, jwt)
    with pytest.raises(Unauthenticated, match="the login was refused"):
        await enter(auth, good, "nobody")
    await enter(auth, good)


async def test_an_audience_is_asked_for_and_checked(auth: AuthService, server: ApiServer) -> None:
    await configured(auth, server)
    await configured(auth, server, token_reviewer_jwt=server.token(*REVIEWER))
    await auth.call("WriteKubernetesRole", name="web", policies=["app"], audience="strongbox", **BOUND)
    await enter(auth, server.token("team", "app", audience="strongbox"))
    assert server.asked[-1]["spec"]["audiences"] == ["strongbox"]
    with pytest.raises(Unauthenticated):
        await enter(auth, server.token("team", "app"))
    server.audience_aware = False  # it vouches for a token that was made for somebody else
    with pytest.raises(Unauthenticated):
        await enter(auth, server.token("team", "app"))


async def test_a_reviewers_token_is_used_and_is_nowhere_in_clear(
    auth: AuthService, server: ApiServer
) -> None:
    server.anybody_reviews = False
    await configured(auth, server)
    with pytest.raises(DependencyDown):
        await enter(auth, server.token("team", "app"))
    reviewer = server.token(*REVIEWER)
    await configured(auth, server, token_reviewer_jwt=reviewer)
    assert (await auth.call("ReadKubernetesConfig")).has_token_reviewer_jwt
    jwt = server.token("team", "app")
    await enter(auth, jwt)
    for key, fact in auth.store.facts.items():
        for secret in (reviewer, jwt):
            assert secret.encode() not in key + (fact.value or b"")
    assert all(jwt not in repr(one) for one in auth.pipeline.audited)


async def test_only_the_configured_authority_is_believed(auth: AuthService, server: ApiServer) -> None:
    with ApiServer() as impostor:
        await auth.call("WriteKubernetesConfig", host=impostor.host, ca_cert=server.ca_cert)
        await auth.call("WriteKubernetesRole", name="web", policies=["app"], **BOUND)
        with pytest.raises(DependencyDown):
            await enter(auth, impostor.token("team", "app"))
        assert impostor.asked == []


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 403, 404, 500, 503])
async def test_an_answer_that_is_no_review_is_a_dependency_that_is_down(
    auth: AuthService, server: ApiServer, status: int
) -> None:
    await configured(auth, server)
    server.behaviour = (status, b'{"status": {"authenticated": true}}')
    with pytest.raises(DependencyDown):
        await enter(auth, server.token("team", "app"))
    assert auth.recorded("LoginKubernetes") == []


@pytest.mark.parametrize(
    "raw",
    [b"", b"junk", b"[]", b"{}", b'{"status": 5}', b'{"status": {"authenticated": true}}', b"[" * 100_000,
     b'{"status": {"authenticated": true, "user": {"username": 7}}}'],
)  # fmt: skip
def test_junk_is_no_review(raw: bytes) -> None:
    with pytest.raises(DependencyDown):
        identity_in(raw, "")


@pytest.mark.parametrize("said", ["true", "1", '"yes"', "null", "false"])
def test_only_true_is_authenticated(said: str) -> None:
    raw = f'{{"status": {{"authenticated": {said}, "user": {{"username": "system:serviceaccount:a:b"}}}}}}'
    assert (identity_in(raw.encode(), "") is not None) is (said == "true")


async def test_a_huge_answer_and_a_slow_one_end(auth: AuthService, server: ApiServer) -> None:
    await configured(auth, server)
    server.behaviour = (201, b" " * (300 << 10))
    with pytest.raises(DependencyDown):
        await enter(auth, server.token("team", "app"))


async def test_a_malformed_token_asks_nobody(auth: AuthService, server: ApiServer) -> None:
    await configured(auth, server)
    for role in ("web", "nobody"):
        with pytest.raises(Unauthenticated):
            await enter(auth, "not a token", role)
    assert server.asked == []


async def test_whether_a_role_exists_is_not_told_by_what_a_login_costs(
    auth: AuthService, server: ApiServer
) -> None:
    await configured(auth, server)
    for number, role in enumerate(("web", "nobody"), 1):
        with pytest.raises(Unauthenticated):
            await enter(auth, server.token("team", "other"), role)
        assert len(server.asked) == number
    server.behaviour = (503, b"")
    for role in ("web", "nobody"):
        with pytest.raises(DependencyDown):
            await enter(auth, server.token("team", "app"), role)


async def test_an_audience_without_a_reviewer_is_refused_with_the_reason(
    auth: AuthService, server: ApiServer
) -> None:
    role = {"name": "web", "policies": ["app"], "audience": "strongbox", **BOUND}
    await configured(auth, server)
    with pytest.raises(InvalidInput, match="an audience needs a reviewer"):
        await auth.call("WriteKubernetesRole", **role)
    await configured(auth, server, token_reviewer_jwt=server.token(*REVIEWER))
    await auth.call("WriteKubernetesRole", **role)
    await auth.call("WriteKubernetesConfig", host=server.host, ca_cert=server.ca_cert)
    with capture_logs() as logged, pytest.raises(Unauthenticated):
        await enter(auth, server.token("team", "app"))
    assert [(one["event"], one["role"]) for one in logged if "audience" in one["event"]] == [
        (NO_REVIEWER, "web")
    ]


async def test_a_role_that_is_changed_during_the_review_refuses(auth: AuthService, server: ApiServer) -> None:
    await configured(auth, server)
    review = auth.servicer._kubernetes_logins._reviewer.review

    async def slow(*args: Any) -> Any:
        found = await review(*args)
        await auth.call("DeleteKubernetesRole", name="web")
        return found

    auth.servicer._kubernetes_logins._reviewer.review = slow  # type: ignore[method-assign]
    with pytest.raises(Unauthenticated):
        await enter(auth, server.token("team", "app"))


async def test_the_configuration_is_for_sudo_and_roles_give_what_their_writer_has(
    auth: AuthService, server: ApiServer
) -> None:
    auth.put_policy("half", {"auth/kubernetes/*": "read write delete list"})
    half = auth.add_token(policies=["half"])
    for fields in ({}, {"token_reviewer_jwt": server.token(*REVIEWER)}):
        with pytest.raises(PermissionDenied):
            await auth.call(
                "WriteKubernetesConfig", token=half, host=server.host, ca_cert=server.ca_cert, **fields
            )
    assert auth.store.value(keyspace.KUBERNETES_CONFIG) is None
    for policies in (["app"], ["root"]):
        with pytest.raises(PermissionDenied):
            await auth.call("WriteKubernetesRole", token=half, name="web", policies=policies, **BOUND)
    await auth.call("WriteKubernetesRole", token=half, name="web", policies=["half"], **BOUND)


async def test_names_are_compared_and_never_patterns(auth: AuthService) -> None:
    for names in (["a*"], ["*", "a"], ["+"], ["a/b"], ["App"], [], [""], ["a:b"], ["x" * 254]):
        for field in BOUND:
            with pytest.raises(InvalidInput):
                await auth.call("WriteKubernetesRole", name="web", **{**BOUND, field: names})
    with pytest.raises(InvalidInput):
        await auth.call("WriteKubernetesRole", name="web", **dict.fromkeys(BOUND, ("*",)))


@pytest.mark.parametrize(
    ("extra", "holder"),
    [
        ({POD: ["6f0e"]}, "pod/6f0e"),
        (None, "service-account/team/app"),
        ({}, "service-account/team/app"),
        ({POD: ["a/../b"]}, "service-account/team/app"),
        ({POD: ["a", "b"]}, "service-account/team/app"),
        ({POD: "6f0e"}, "service-account/team/app"),
        ({POD: [7]}, "service-account/team/app"),
        (["junk"], "service-account/team/app"),
    ],
)
def test_a_pod_is_a_holder_of_its_own_where_the_server_names_it(extra: object, holder: str) -> None:
    user = {"username": "system:serviceaccount:team:app", "extra": extra}
    raw = json.dumps({"status": {"authenticated": True, "user": user}}).encode()
    who = identity_in(raw, "")
    assert who is not None
    assert holder_of(who) == holder


async def test_the_token_of_a_login_names_its_holder(auth: AuthService, server: ApiServer) -> None:
    await configured(auth, server)
    made = await enter(auth, server.token("team", "app"))
    record = auth.guard.lookup.token(auth.store.view(), access.digest(made.token))
    assert record is not None
    assert groups_of(record) == ("service-account/team/app", "kubernetes/web")
