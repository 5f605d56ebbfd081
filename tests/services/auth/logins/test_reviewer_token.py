"""The reviewer's token that Kubernetes renews in a file: read again and again, for its own server only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from services.auth.logins.kubernetes_roles import Config
from services.auth.logins.reviewer_token import OwnReviewer
from strongbox.config import Settings
from strongbox.errors import DependencyDown, InvalidInput
from tests.services.auth.support import AuthService
from tests.services.auth.test_kubernetes_logins import BOUND, configured, enter
from tests.support.api_server import REVIEWER, ApiServer


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(anybody_reviews=False) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def auth(server: ApiServer, file: Path) -> AuthService:
    return AuthService(own=OwnReviewer(server.host, file))


async def test_a_renewed_token_is_used_at_once_and_nobody_writes_a_configuration(
    auth: AuthService, server: ApiServer, file: Path
) -> None:
    file.write_text(server.token(*REVIEWER, ttl=-70))
    await configured(auth, server)
    jwt = server.token("team", "app")
    with pytest.raises(DependencyDown):  # it has run out, and was not renewed
        await enter(auth, jwt)
    renewed = file.with_name("renewed")
    renewed.write_text(server.token(*REVIEWER) + "\n")
    renewed.rename(file)  # as the kubelet does
    await enter(auth, jwt)


async def test_with_it_a_role_may_name_an_audience(auth: AuthService, server: ApiServer, file: Path) -> None:
    file.write_text(server.token(*REVIEWER))
    await configured(auth, server)
    await auth.call("WriteKubernetesRole", name="web", policies=["app"], audience="strongbox", **BOUND)
    await enter(auth, server.token("team", "app", audience="strongbox"))


@pytest.mark.parametrize("content", [None, b"", b"junk", b"\xff\xfe", b"a.b." + b"c" * 20_000])
async def test_a_file_without_a_token_is_as_none_and_is_told(
    auth: AuthService, server: ApiServer, file: Path, content: bytes | None
) -> None:
    """The configuration's token is used then."""
    if content is not None:
        file.write_bytes(content)
    await configured(auth, server, token_reviewer_jwt=server.token(*REVIEWER))
    with capture_logs() as logged:
        await enter(auth, server.token("team", "app"))
    assert [one["event"] for one in logged] == ["the reviewer's token cannot be read"]
    assert "junk" not in str(logged)


@pytest.mark.parametrize("why", ["no right", "ended"])
async def test_where_it_may_not_ask_whom_the_configuration_names_does(
    auth: AuthService, server: ApiServer, file: Path, why: str
) -> None:
    """Who may not grant the right leaves `components/reviewer` out, and the file is mounted all the same."""
    own = {"no right": server.token("strongbox", "strongbox-auth"), "ended": server.token(*REVIEWER, ttl=-70)}
    file.write_text(own[why])
    await configured(auth, server, token_reviewer_jwt=server.token(*REVIEWER))
    await enter(auth, server.token("team", "app"))
    await configured(auth, server)
    with pytest.raises(DependencyDown):  # nobody may
        await enter(auth, server.token("team", "app"))
    server.anybody_reviews = True
    await enter(auth, server.token("team", "app"))  # each login's own token


async def test_another_clusters_server_never_gets_it(
    auth: AuthService, file: Path, server: ApiServer
) -> None:
    file.write_text(server.token(*REVIEWER))
    bearers = []
    with ApiServer(anybody_reviews=False) as other:
        review = other.review
        other.review = lambda bearer, asked: (bearers.append(bearer), review(bearer, asked))[1]  # type: ignore[method-assign]
        reviewer = other.token(*REVIEWER)
        await configured(auth, other, token_reviewer_jwt=reviewer)
        await enter(auth, other.token("team", "app"))
        await configured(auth, other)
        with pytest.raises(DependencyDown):
            await enter(auth, other.token("team", "app"))
        with pytest.raises(InvalidInput, match="an audience needs a reviewer"):
            await auth.call("WriteKubernetesRole", name="x", policies=["app"], audience="strongbox", **BOUND)
    assert len(bearers) == 2
    assert bearers[0] == reviewer
    assert file.read_text() not in bearers


@pytest.mark.parametrize(
    ("told", "configured", "same"),
    [
        ("https://kubernetes.default.svc", "https://kubernetes.default.svc:443", True),
        ("https://kubernetes.default.svc/", "https://KUBERNETES.default.svc", True),
        ("https://kubernetes.default.svc", "https://kubernetes.default.svc:6443", False),
        ("https://kubernetes.default.svc", "https://kubernetes.default.svc.example", False),
    ],
)
def test_a_server_is_its_name_and_port(told: str, configured: str, same: bool, file: Path) -> None:
    assert OwnReviewer(told, file).is_for(Config(host=configured)) is same
    assert not OwnReviewer(told).is_for(Config(host=configured))


@pytest.mark.parametrize("host", ["http://kubernetes.default.svc", "https://", "https://a/b", "https://u@a"])
def test_a_host_that_is_none_is_refused_at_the_start(host: str) -> None:
    files = {"tls_cert": "/a", "tls_key": "/b", "tls_ca": "/c", "etcd_endpoints": ["e:1"]}
    with pytest.raises(ValidationError):
        Settings.model_validate({"node_id": "a", "service": "auth", "reviewer_host": host, **files})
