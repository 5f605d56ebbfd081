"""One table: what was got wrong elsewhere, tried here over REST and gRPC. Each is refused, and tells nothing.

More of each, and what no request can show (timing, logs, forged records), is in the tests that
tests/README.md names for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.clients import Patience, Refused, refusal_of
from tests.support.cluster import Cluster
from tests.support.expect import outcome

pytestmark = pytest.mark.cluster
_CANARY = "value-of-the-victim-5d1c"
_RULES = [
    {"path": "secret/cve/*", "capabilities": ["read", "write", "list"]},
    {"path": "secret/cve/no/*", "capabilities": ["deny"]},
    {"path": "secret/cve-one/+", "capabilities": ["read"]},
]
_VALUE: dict[str, Any] = {"value": "of the thief"}
_DENIED, _BAD = ("PERMISSION_DENIED",), ("INVALID_ARGUMENT",)
_NOT_LET_IN = ("PERMISSION_DENIED", "NOT_FOUND")


@dataclass(frozen=True)
class Attack:
    """One request by `who`, over both doors; `codes` are the refusals that are right.

    `rest` is (method, target, body) and `native` (RPC, fields), either None where that door has no such
    form. `{lease}`, `{accessor}` and `{deep}` stand for what the victim has, and 40 objects in another.
    """

    mistake: str
    who: str
    rest: tuple[str, str, Any] | None
    native: tuple[str, dict[str, Any]] | None
    codes: tuple[str, ...]


def _path(mistake: str, path: str, url: str, codes: tuple[str, ...] = _BAD) -> Attack:
    return Attack(
        mistake, "thief", ("GET", f"/v1/secrets/{url}", None), ("ReadSecret", {"path": path}), codes
    )


def _name(mistake: str, name: str, url: str) -> Attack:
    rest = ("PUT", f"/v1/policies/{url}", {"rules": _RULES[:1]})
    return Attack(mistake, "root", rest, ("WritePolicy", {"name": name, "rules": _RULES[:1]}), _BAD)


_ATTACKS = [
    _name("policy name in another case", "CVE-thief", "CVE-thief"),
    _name("policy name in another Unicode form", "cve-thi\u0065\u0301f", "cve-thie%CC%81f"),
    _name("policy name with fullwidth letters", "\uff43ve-thief", "%EF%BD%83ve-thief"),
    _name("a wildcard in a policy's name", "cve-*", "cve-*"),
    _name("a segment's wildcard in a policy's name", "cve-+", "cve-+"),
    Attack(
        "a slash in a policy's name", "root", None,
        ("WritePolicy", {"name": "a/b", "rules": _RULES[:1]}), _BAD,
    ),
    Attack(
        "a user's name in another case", "root",
        ("PUT", "/v1/users/CVE-user", {"password": "long enough for all", "policies": []}),
        ("WriteUser", {"name": "CVE-user", "password": "long enough for all"}), _BAD,
    ),
    Attack(
        "lockout evaded by another spelling", "nobody",
        ("POST", "/v1/auth/login/CVE-USER", {"password": "x"}),
        ("LoginUser", {"name": "CVE-USER", "password": "x"}), ("UNAUTHENTICATED", "INVALID_ARGUMENT"),
    ),
    _path("traversal by ..", "cve/../victim/a", "cve/%2e%2e/victim/a"),
    _path("traversal by .", "cve/./no/hidden", "cve/%2e/no/hidden"),
    _path("an empty segment", "cve//no/hidden", "cve//no/hidden"),
    _path("an escaped slash", "cve%2fno%2fhidden", "cve%2Fno%2Fhidden", (*_BAD, *_NOT_LET_IN)),
    _path("a dot twice escaped", "cve/%2e%2e/victim", "cve/%252e%252e/victim", (*_BAD, *_NOT_LET_IN)),
    _path("a slash at the end", "cve/no/hidden/", "cve/no/hidden//"),
    _path("a null in a path", "cve/no\x00/hidden", "cve/no%00/hidden"),
    _path("a wildcard that is one segment reading two", "cve-one/a/b", "cve-one/a/b", _DENIED),
    _path("a deny below what is granted", "cve/no/hidden", "cve/no/hidden", _DENIED),
    Attack(
        "LIST escaping a deny", "thief", ("GET", "/v1/secrets-list/cve/no", None),
        ("ListSecrets", {"prefix": "cve/no"}), _DENIED,
    ),
    Attack(
        "LIST above what is granted, recursive", "thief", ("GET", "/v1/secrets-list?recursive=true", None),
        ("ListSecrets", {"recursive": True}), _DENIED,
    ),
    Attack(
        "a rekey cancelled by nobody", "nobody", ("POST", "/v1/sys/rekey/cancel", {"nonce": ""}),
        ("CancelRekey", {"nonce": "AAAA"}), (*_DENIED, *_BAD),
    ),
    Attack(
        "a generate-root cancelled by nobody", "nobody", ("POST", "/v1/sys/generate-root/cancel", {}),
        ("CancelGenerateRoot", {"nonce": "AAAA"}), (*_DENIED, *_BAD),
    ),
    Attack(
        "another's lease renewed", "thief", ("POST", "/v1/leases/{lease}/renew", {}),
        ("RenewLease", {"id": "{lease}"}), _NOT_LET_IN,
    ),
    Attack(
        "another's lease revoked", "thief", ("POST", "/v1/leases/{lease}/revoke", {}),
        ("RevokeLease", {"id": "{lease}"}), _NOT_LET_IN,
    ),
    Attack(
        "another's token revoked by its accessor", "thief", ("DELETE", "/v1/tokens/{accessor}", None),
        ("RevokeToken", {"accessor": "{accessor}"}), _NOT_LET_IN,
    ),
    Attack(
        "another's token renewed by its accessor", "thief", ("POST", "/v1/tokens/{accessor}/renew", {}),
        ("RenewToken", {"accessor": "{accessor}"}), _NOT_LET_IN,
    ),
    Attack(
        "a token with more than its maker has", "thief", ("POST", "/v1/tokens", {"policies": ["root"]}),
        ("CreateToken", {"policies": ["root"]}), _DENIED,
    ),
    Attack(
        "SQL in a database role's name", "root",
        ("PUT", "/v1/postgres/roles/x%22%3BDROP", {"connection": "none", "template_role": "t"}),
        ("WritePostgresRole", {"name": 'x";DROP', "connection": "none", "template_role": "t"}), _BAD,
    ),
    Attack(
        "an object 40 deep", "thief", ("PUT", "/v1/secrets/cve/deep", {"data": "{deep}"}),
        ("WriteSecret", {"path": "cve/deep", "data": "{deep}"}), _BAD,
    ),
    Attack(
        "a field of the body overriding the URL's path", "thief",
        ("PUT", "/v1/secrets/cve/no/hidden", {"path": "cve/yes", **_VALUE}), None, (*_DENIED, *_BAD),
    ),
    Attack(
        "a query overriding the URL's path", "thief", ("GET", "/v1/secrets/cve/no/hidden?path=cve/yes", None),
        None, (*_DENIED, *_BAD),
    ),
    Attack(
        "a query overriding the URL's path the other way", "thief",
        ("GET", "/v1/secrets/cve/yes?path=cve/no/hidden", None), None, _BAD,
    ),
    Attack(
        "a syntax error quoted", "thief",
        ("PUT", "/v1/secrets/cve/yes", b'{"value": "' + _CANARY.encode()), None, _BAD,
    ),
    Attack("a wrong type quoted", "thief", ("PUT", "/v1/secrets/cve/yes", {"cas": _CANARY}), None, _BAD),
    Attack(
        "a junk share", "nobody", ("POST", "/v1/sys/rekey/init", {"share": "AAAA"}),
        ("StartRekey", {"share": "AAAA"}), _BAD,
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def victims(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """The victim's secret, lease and token are as they were after all of it."""
    with cluster.rest(cluster.root_token, 0, Patience()) as root:
        root.call("PUT", "/v1/policies/cve-thief", {"rules": _RULES})
        user = {"password": "long enough for all", "policies": ["default"]}
        root.call("PUT", "/v1/users/cve-user", user)
        for path in ("cve/yes", "cve/no/hidden", "victim/a", "cve-one/a/b"):
            root.write(path, _CANARY)
        token = root.call("POST", "/v1/tokens", {"policies": ["root"], "ttl": "1h"})
        with cluster.rest(token["token"]) as victim:
            lease = victim.read("victim/a")["lease"]["id"]
        yield {
            "lease": lease, "accessor": token["accessor"],
            "thief": root.call("POST", "/v1/tokens", {"policies": ["cve-thief"]})["token"],
            "root": cluster.root_token, "nobody": "",
        }  # fmt: skip
        assert root.read("victim/a")["value"] == root.read("cve/no/hidden")["value"] == _CANARY
        assert root.call("GET", f"/v1/leases/{lease}")["state"] == "ACTIVE"
        assert root.call("GET", f"/v1/tokens/{token['accessor']}")["policies"] == ["root", "default"]
        assert not {"CVE-thief", "cve-*", "cve-+", "a/b"} & set(root.call("GET", "/v1/policies")["names"])


@pytest.mark.parametrize("attack", [one for one in _ATTACKS if one.rest], ids=lambda one: one.mistake)
def test_a_mistake_of_others_is_refused_over_rest(
    cluster: Cluster, victims: dict[str, Any], attack: Attack
) -> None:
    assert attack.rest is not None
    method, target, body = attack.rest
    content = body if isinstance(body, bytes | None) else json.dumps(_filled(body, victims)).encode()
    with cluster.rest(victims[attack.who], 1, Patience()) as client:
        answer = client.raw(method, _filled(target, victims), content)
    assert answer.status_code >= 400, f"let in: {answer.text[:200]}"
    _require_refusal(attack, refusal_of(answer))
    assert _CANARY not in answer.text + str(answer.headers)


@pytest.mark.parametrize("attack", [one for one in _ATTACKS if one.native], ids=lambda one: one.mistake)
def test_a_mistake_of_others_is_refused_over_grpc(
    cluster: Cluster, victims: dict[str, Any], attack: Attack
) -> None:
    assert attack.native is not None
    name, fields = attack.native
    with cluster.grpc(victims[attack.who], 2, Patience()) as client:
        refusal = outcome(client.call, name, **_filled(fields, victims))
    assert refusal is not None, "let in"
    _require_refusal(attack, refusal)
    assert _CANARY not in str(refusal)


def _require_refusal(attack: Attack, refusal: Refused) -> None:
    assert refusal.code in attack.codes, f"{attack.mistake}: {refusal}"
    assert refusal.domain == "strongbox"


def _filled(value: Any, victims: dict[str, Any]) -> Any:
    """`value` with what the victim has in the places of its names."""
    if isinstance(value, dict):
        return {key: _filled(one, victims) for key, one in value.items()}
    if value == "{deep}":
        return _nested(40)
    if isinstance(value, str):
        return value.replace("{lease}", victims["lease"]).replace("{accessor}", victims["accessor"])
    return value


def _nested(depth: int) -> dict[str, Any]:
    return {"a": _nested(depth - 1)} if depth else {}
