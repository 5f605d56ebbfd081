"""What a write answers: the settings as they count, so that a field which had no effect is seen."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from tests.services.auth.support import PASSWORD, AuthService

DAY = 86_400
ACCOUNT = {"bound_service_account_names": ["web"], "bound_service_account_namespaces": ["shop"]}


@pytest.fixture
def auth() -> AuthService:
    return AuthService()


def told(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("User", {"password": PASSWORD, "policies": ["APP"]}),
        ("AppRole", {"policies": ["APP"], "bound_cidrs": ["10.0.0.0/8"], "secret_id_num_uses": 3}),
        ("KubernetesRole", {"policies": ["APP"], **ACCOUNT}),
    ],
)
async def test_a_write_answers_what_a_read_does(auth: AuthService, kind: str, fields: dict[str, Any]) -> None:
    written = told(await auth.call(f"Write{kind}", name="web", **fields))
    read = told(await auth.call(f"Read{kind}", name="web"))
    # These two are no settings; the rest is told by both.
    assert {name: read.get(name) for name in written} == written
    assert set(read) - set(written) <= {"password_changed_at", "failures"}
    assert written["policies"] == ["app"]
    assert written["token_ttl"] == 3600


async def test_a_new_token_is_told_with_the_limits_that_count(auth: AuthService) -> None:
    plain = await auth.call("CreateToken", policies=["app"])
    assert (plain.num_uses, plain.max_ttl, plain.period, plain.display_name) == (0, 32 * DAY, 0, "")
    limited = await auth.call("CreateToken", policies=["app"], num_uses=2, display_name="ci")
    assert (limited.num_uses, limited.display_name) == (2, "ci")
