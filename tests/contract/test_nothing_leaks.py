"""A value goes through every form of request, good and bad; then it is in no byte that anybody could find."""

from __future__ import annotations

import json
import secrets

import pytest

from strongbox.crypto.shamir import Share, combine
from tests.support.canary import Canaries
from tests.support.clients import GrpcClient, RestClient
from tests.support.cluster import Cluster
from tests.support.expect import outcome

pytestmark = pytest.mark.cluster


def _canary(kind: str) -> str:
    return f"canary {kind} {secrets.token_hex(6)}"


@pytest.fixture
def sent(root: RestClient, native: GrpcClient) -> dict[str, str | bytes]:
    """Canaries by the way they were sent."""
    ways: dict[str, str] = {}
    others: dict[str, str | bytes] = {}
    for form in ("value", "data", "bad json", "wrong type", "wrong field", "query", "cas"):
        ways[form] = _canary(form)
    root.write("leaks/value", ways["value"])
    root.call("PUT", "/v1/secrets/leaks/data", {"data": {"list": [{"deep": ways["data"]}]}})
    others["binary"] = secrets.token_bytes(24)
    native.call("WriteSecret", path="leaks/binary", binary=others["binary"])
    root.raw("PUT", "/v1/secrets/leaks/x", f'{{"value": "{ways["bad json"]}" oops'.encode())
    root.raw("PUT", "/v1/secrets/leaks/x", f'{{"value": "", "cas": "{ways["wrong type"]}"}}'.encode())
    root.raw("PUT", "/v1/secrets/leaks/x", json.dumps({"valeu": ways["wrong field"]}).encode())
    root.raw("GET", f"/v1/secrets/leaks/x?version={ways['query'].replace(' ', '%20')}")
    outcome(root.write, "leaks/value", ways["cas"], cas=99)
    for path in ("leaks/value", "leaks/data", "leaks/binary"):
        native.call("ReadSecret", path=path)
        root.read(path)
    others["token"] = str(root.call("POST", "/v1/tokens", {"policies": ["default"]})["token"])
    return {**ways, **others, **_logins(root)}


def _logins(root: RestClient) -> dict[str, str | bytes]:
    """A right and a wrong password, a secret id, and the tokens that logins gave."""
    right, wrong = _canary("password"), _canary("wrong password")
    root.call("PUT", "/v1/users/leaky", {"password": right, "policies": ["default"]})
    made = root.call("POST", "/v1/auth/login/leaky", {"password": right})
    outcome(root.call, "POST", "/v1/auth/login/leaky", {"password": wrong})
    root.raw("POST", "/v1/auth/login/leaky", f'{{"password": "{wrong}" oops'.encode())
    role = root.call("PUT", "/v1/approles/leaky", {"policies": ["default"]})["role_id"]
    secret = str(root.call("POST", "/v1/approles/leaky/secret-id", {})["secret_id"])
    entered = root.call("POST", "/v1/auth/approle/login", {"role_id": role, "secret_id": secret})
    return {
        "password": right, "wrong password": wrong, "secret id": secret,
        "login token": str(made["token"]), "approle token": str(entered["token"]),
    }  # fmt: skip


def test_no_value_token_or_share_is_on_any_disk_in_etcd_in_a_log_or_in_proc(
    cluster: Cluster, sent: dict[str, str | bytes]
) -> None:
    shares = [Share.decode(text) for text in cluster.shares]
    known: dict[str, str | bytes] = {"root token": cluster.root_token, **sent}
    for share, text in zip(shares, cluster.shares, strict=True):
        known |= {f"share {share.index}": text, f"share {share.index} raw": share.data}
    known["unseal key"] = combine(shares[:2])
    exempt = cluster.folder / "init.json"
    Canaries(known).search([cluster.folder], cluster.pids, [exempt]).require_clean(least_files=30)
    # The same search finds them where they may be, so it is not blind.
    control = Canaries({"root token": cluster.root_token}).search([cluster.folder])
    assert {one.where for one in control.sightings} == {str(exempt)}
