"""Bad requests by RPC: what each must refuse, with which reason, whoever asks and however it is sent.

Over gRPC all of `NATIVE`; over REST the same where the request can be written as JSON at all, and besides
what only JSON can get wrong (types, syntax), in `WRONG_TYPES`.
"""

from __future__ import annotations

from typing import Any

from tests.support.samples import AUTHORITY

INVALID, BAD_PATH, TOO_LARGE = "INVALID_ARGUMENT", "INVALID_PATH", "TOO_LARGE"
Bad = tuple[dict[str, Any], str]

# The same text goes over REST percent-encoded where a URL needs it, and straight in gRPC.
PATHS = [
    "", "/", "a/", "/a", "a//b", "a/./b", "a/../b", "..", ".", "a/%2e/b", "a%2fb", "a\x00b", "a\nb", "a\x7fb",
    "e\u0301", "x" * 513, "\u00e9" * 257, "a/b/" + "c/" * 300,
]  # fmt: skip
NAMES = ["", "a b", "a/b", "x" * 129, "é", "..", "a\n", "a%20b", "*"]
# A token's accessor or a lease's id that cannot be one is simply not there.
IDS = ["", "nonsense", "../root", "x" * 600, "a/b", "\x00" * 24, "é" * 12]
DURATIONS: list[Any] = ["", "soon", "-5s", -1, "1.5.h", 1e12, True, {"a": 1}, [1], "9" * 400]


_DSN = "postgresql://127.0.0.1:1/postgres"
_USER = {"username": "u", "password": "p"}
_CONNECTION: dict[str, Any] = {"dsn": _DSN, **_USER}
_ROLE: dict[str, Any] = {"connection": "nobody", "template_role": "t"}
DSNS = [
    "", "host=127.0.0.1", "mysql://127.0.0.1/x", "postgresql://", "postgresql:///postgres",
    "postgresql://u:secret@127.0.0.1/postgres", "postgresql://127.0.0.1/x?password=secret",
    "postgresql://127.0.0.1/x?passfile=/etc/passwd", "postgresql://127.0.0.1/x?options=-csearch_path%3Dx",
    "postgresql://%2Fvar%2Frun/x", "postgresql://127.0.0.1/x?sslmode=maybe", "postgresql://127.0.0.1:0/x",
    "postgresql://127.0.0.1:99999/x", "postgresql://127.0.0.1/a b", "postgresql://127.0.0.1/x?service=prod",
    "postgresql://127.0.0.1/x?sslrootcert=/etc/shadow", "postgresql://db.example/x?sslmode=prefer",
    "p" * 2000,
    "postgresql://127.0.0.1,/x", "postgresql://127.0.0.1/x?sslmode=verify-ca",
]  # fmt: skip


def _each(field: str, values: list[Any], reason: str, **rest: Any) -> list[Bad]:
    return [({**rest, field: value}, reason) for value in values]


def _versions(**rest: Any) -> list[Bad]:
    lists = [[0], [-1], [1, -2], list(range(1, 5000))]
    return _each("versions", lists, INVALID, **rest)


_PAGES = [*_each("page_size", [-1, 1001], INVALID), *_each("page_token", ["!", "\x00", "A" * 5000], INVALID)]

_PASSWORD = "a password that is long enough"
_HOSTS = [
    "",
    "http://a",
    "https://",
    "https://a/b",
    "https://u@a",
    "https://a?b",
    "https://a:99999",
    "ftp://a",
]
_BOUND = {"bound_service_account_names": ["app"], "bound_service_account_namespaces": ["default"]}

BAD: dict[str, list[Bad]] = {
    "WriteSecret": [
        *_each("path", PATHS, BAD_PATH, value="x"),
        ({"path": "bad/w"}, INVALID),
        ({"path": "bad/w", "value": "a", "data": {}}, INVALID),
        ({"path": "bad/w", "value": "a", "cas": -1}, INVALID),
        ({"path": "bad/w", "value": "v" * (512 * 1024 + 1)}, TOO_LARGE),
        ({"path": "bad/w", "data": {"n": 2**53}}, INVALID),
        *_each("ttl", DURATIONS, INVALID, path="bad/w", value="x"),
    ],
    "ReadSecret": [*_each("path", PATHS, BAD_PATH), *_each("version", [0, -1], INVALID, path="bad/r")],
    "DeleteSecretVersions": [*_each("path", PATHS, BAD_PATH), *_versions(path="bad/r")],
    "UndeleteSecretVersions": [
        *_each("path", PATHS, BAD_PATH, versions=[1]), *_versions(path="bad/r"), ({"path": "bad/r"}, INVALID),
    ],
    "DestroySecretVersions": [
        *_each("path", PATHS, BAD_PATH, versions=[1]), *_versions(path="bad/r"), ({"path": "bad/r"}, INVALID),
    ],
    "ReadSecretMetadata": _each("path", PATHS, BAD_PATH),
    "UpdateSecretMetadata": [
        *_each("path", PATHS, BAD_PATH, max_versions=3),
        *_each("max_versions", [0, -1, 100000], INVALID, path="bad/r"),
        ({"path": "bad/r", "custom": {"k" * 200: "v"}}, TOO_LARGE),
        ({"path": "bad/r", "custom": {"k": "v" * 20000}}, TOO_LARGE),
    ],
    "DeleteSecretMetadata": _each("path", PATHS, BAD_PATH),
    "ListSecrets": [
        *_each("prefix", [path for path in PATHS if path not in ("", "a/")], BAD_PATH),
        *[({**fields, "prefix": "bad"}, reason) for fields, reason in _PAGES],
    ],
    "BatchReadSecrets": [
        ({}, INVALID), ({"requests": []}, INVALID), ({"requests": [{"path": "bad/r"}] * 257}, TOO_LARGE),
    ],
    "WatchSecrets": [
        *_each("prefix", [path for path in PATHS if path not in ("", "a/")], BAD_PATH),
        *_each("from_revision", ["x", "-1", "0", "1.5", "9" * 30, "\u0661"], INVALID, prefix="bad"),
    ],
    "CreateToken": [
        *_each("ttl", DURATIONS, INVALID, policies=["default"]),
        *_each("max_ttl", DURATIONS, INVALID, policies=["default"]),
        *_each("period", DURATIONS, INVALID, policies=["default"]),
        *_each("policies", [[name] for name in NAMES], INVALID),
        ({"policies": ["default"], "num_uses": -1}, INVALID),
        ({"policies": ["default"], "display_name": "x" * 5000}, INVALID),
        ({"policies": [f"p{number}" for number in range(2000)]}, INVALID),
    ],
    "RenewSelf": _each("increment", DURATIONS, INVALID),
    "LookupToken": _each("accessor", IDS, "NOT_FOUND"),
    "RenewToken": _each("accessor", IDS, "NOT_FOUND"),
    "RevokeToken": _each("accessor", IDS, "NOT_FOUND"),
    "ListTokens": _PAGES,
    "WritePolicy": [
        *_each("name", NAMES, INVALID, rules=[]),
        *_each("name", ["root", "ROOT", "default"], INVALID, rules=[]),
        ({"name": "bad", "rules": [{"path": "secret/x", "capabilities": ["fly"]}]}, INVALID),
        ({"name": "bad", "rules": [{"path": "", "capabilities": ["read"]}]}, INVALID),
        ({"name": "bad", "rules": [{"path": "secret/x"}]}, INVALID),
        ({"name": "bad", "rules": [{"path": "secret/a*b", "capabilities": ["read"]}]}, INVALID),
        ({"name": "bad", "rules": [{"path": "secret/" + "x" * 2000, "capabilities": ["read"]}]}, INVALID),
        ({"name": "bad", "rules": [{"path": "secret/x", "capabilities": ["read"]}] * 5000}, TOO_LARGE),
    ],
    "ReadPolicy": _each("name", NAMES, INVALID),
    "DeletePolicy": [*_each("name", NAMES, INVALID), *_each("name", ["root", "default"], INVALID)],
    "ListPolicies": _PAGES,
    "ExplainAccess": [
        ({"path": "secret/a", "capability": "read"}, INVALID),
        ({"policies": ["default"], "accessor": "A" * 24, "path": "secret/a", "capability": "read"}, INVALID),
        *_each("capability", ["", "fly", "deny"], INVALID, policies=["default"], path="secret/a"),
        *_each("path", [p for p in PATHS if p != "a/"], BAD_PATH, policies=["default"], capability="read"),
        *_each("policies", [[name] for name in NAMES], INVALID, path="secret/a", capability="read"),
    ],
    "WriteUser": [
        *_each("name", NAMES, INVALID, password=_PASSWORD),
        *_each("password", ["", "short", "eleven char", "x" * 1025], INVALID, name="bad"),
        ({"name": "bad"}, INVALID),
        ({"name": "bad", "password": _PASSWORD, "policies": ["no such policy"]}, INVALID),
        ({"name": "bad", "password": _PASSWORD, "policies": ["missing"]}, INVALID),
        *_each("token_ttl", [*DURATIONS, 0, "33d"], INVALID, name="bad", password=_PASSWORD),
    ],
    "ReadUser": _each("name", NAMES, INVALID),
    "DeleteUser": _each("name", NAMES, INVALID),
    "ListUsers": _PAGES,
    "LoginUser": [
        *_each("name", NAMES, INVALID, password="x"), ({"name": "bad", "password": "x" * 1025}, INVALID),
    ],
    "WriteAppRole": [
        *_each("name", NAMES, INVALID),
        ({"name": "bad", "policies": ["missing"]}, INVALID),
        *_each("token_num_uses", [-1, 1_000_001], INVALID, name="bad"),
        *_each("secret_id_num_uses", [-1, 1_000_001], INVALID, name="bad"),
        *_each("bound_cidrs", [["10.0.0.1/8"], ["everywhere"], [""], ["10.0.0.0/33"]], INVALID, name="bad"),
        *_each("token_ttl", [*DURATIONS, 0], INVALID, name="bad"),
        *_each("token_max_ttl", [*DURATIONS, 0], INVALID, name="bad"),
        *_each("secret_id_ttl", [*DURATIONS, 0], INVALID, name="bad"),
    ],
    "ReadAppRole": _each("name", NAMES, INVALID),
    "DeleteAppRole": _each("name", NAMES, INVALID),
    "ListAppRoles": _PAGES,
    "CreateSecretId": _each("name", NAMES, INVALID),
    "RevokeSecretId": _each("name", NAMES, INVALID, accessor="A" * 24),
    "WriteKubernetesConfig": [
        *_each("host", _HOSTS, INVALID, ca_cert=AUTHORITY),
        *_each("ca_cert", ["", "nonsense", AUTHORITY[:200]], INVALID, host="https://127.0.0.1:1"),
        ({"host": "https://127.0.0.1:1", "ca_cert": AUTHORITY, "token_reviewer_jwt": "no jwt"}, INVALID),
    ],
    "WriteKubernetesRole": [
        *_each("name", NAMES, INVALID, **_BOUND),
        *_each("bound_service_account_names", [[], ["*", "a"], ["a*"], ["A"], [""], ["a/b"], ["+"]], INVALID,
               name="bad", bound_service_account_namespaces=["default"]),
        ({"name": "bad", **{field: ["*"] for field in _BOUND}}, INVALID),
        ({**_BOUND, "name": "bad", "audience": "x" * 257}, INVALID),
        ({**_BOUND, "name": "bad", "policies": ["missing"]}, INVALID),
    ],
    "ReadKubernetesRole": _each("name", NAMES, INVALID),
    "DeleteKubernetesRole": _each("name", NAMES, INVALID),
    "ListKubernetesRoles": _PAGES,
    "LoginKubernetes": _each("role", NAMES, INVALID, jwt="e30.e30.e30"),
    "GetLease": _each("id", IDS, "NOT_FOUND"),
    "ListLeases": [
        ({}, INVALID), ({"path": "secret/a", "accessor": "A" * 24}, INVALID),
        *[({**fields, "path": "secret/bad"}, reason) for fields, reason in _PAGES],
        ({"path": "secret/bad", "state": "SLEEPING"}, INVALID),
    ],
    "RevokeLease": _each("id", IDS, "NOT_FOUND"),
    "RenewLease": [
        *_each("id", IDS, "NOT_FOUND"), *_each("increment", DURATIONS, INVALID, id="p" + "0" * 40),
    ],
    "RevokeLeasePrefix": [
        *_each("prefix", [path for path in PATHS if path != "a/"], BAD_PATH),
        ({"prefix": "secret/bad/", "page_token": "!"}, INVALID),
    ],
    "IssueCredential": _each("role", NAMES, INVALID),
    "WritePostgresConnection": [
        *_each("name", NAMES, INVALID, **_CONNECTION), *_each("dsn", DSNS, INVALID, name="bad", **_USER),
        *_each("username", ["x" * 64, "a\x00b"], INVALID, name="bad", dsn=_DSN, password="p"),
        *_each("password", ["", "p" * 1025, "a\x00b"], INVALID, name="bad", dsn=_DSN, username="u"),
        ({"name": "bad", **_CONNECTION, "ca": "no PEM"}, INVALID),
    ],
    "ReadPostgresConnection": _each("name", NAMES, INVALID),
    "DeletePostgresConnection": _each("name", NAMES, INVALID),
    "ListPostgresConnections": _PAGES,
    "RotatePostgresRoot": _each("name", NAMES, INVALID),
    "InspectPostgresConnection": _each("name", NAMES, INVALID),
    "WritePostgresRole": [
        *_each("name", NAMES, INVALID, **_ROLE),
        *_each("connection", NAMES, INVALID, name="bad", template_role="t"),
        ({"name": "bad", **_ROLE}, INVALID),  # there is no such connection
        *_each("template_role", ["", "x" * 64, "a\x00b", "a\nb"], INVALID, name="bad", connection="c"),
        *_each("default_ttl", [*DURATIONS, "0s", "33d"], INVALID, name="bad", **_ROLE),
        *_each("max_ttl", [*DURATIONS, "0s", "33d"], INVALID, name="bad", **_ROLE),
        ({"name": "bad", **_ROLE, "default_ttl": "2h", "max_ttl": "1h"}, INVALID),
        *_each("max_leases", [-1, 1_000_001], INVALID, name="bad", **_ROLE),
    ],
    "ReadPostgresRole": _each("name", NAMES, INVALID),
    "DeletePostgresRole": _each("name", NAMES, INVALID),
    "ListPostgresRoles": _PAGES,
    "ListEntries": [
        ({"from_index": -1}, INVALID), ({"limit": -1}, INVALID), ({"limit": 1001}, INVALID),
        ({"before_index": -1}, INVALID),
        *_each("since", ["yesterday", "2026-01-31", "2026-01-31T12:00:00", "9" * 300], INVALID),
        *_each("until", ["0", "2026-13-01T00:00:00Z"], INVALID),
    ],
    "FollowEntries": [({"from_index": -1}, INVALID)],
    "GetProof": [
        ({}, INVALID), *_each("index", [-1, 2**31 - 1], INVALID),
        *_each("size", [-1, 0, 2**31 - 1], INVALID, index=0), ({"index": 2, "size": 2}, INVALID),
        *_each("from_size", [-1, 2**31 - 1], INVALID), ({"from_size": 3, "size": 2}, INVALID),
    ],
    "Unseal": _each("share", ["", "nonsense", "A" * 46, "A" * 5000], "any"),
    "Initialize": _each("shares", [-1, 256], "any"),
    "StartRekey": [
        *_each("share", ["", "nonsense", "A" * 46, "A" * 5000], INVALID),
        *_each("shares", [-1, 256], INVALID, share="AQE" + "A" * 43),
    ],
    "UpdateRekey": _each("share", ["", "nonsense", "A" * 46, "A" * 5000], INVALID, nonce="n"),
    "VerifyRekey": _each("share", ["", "nonsense", "A" * 46, "A" * 5000], INVALID, nonce="n"),
    "CancelRekey": _each("nonce", ["", "\0", "n" * 100_000], INVALID),
    "ArchiveEntries": _each("before_index", [-1, 2**31 - 1], INVALID),
    "StartGenerateRoot": _each("share", ["", "nonsense", "A" * 46, "A" * 5000], INVALID),
    "UpdateGenerateRoot": _each("share", ["", "nonsense", "A" * 46, "A" * 5000], INVALID, nonce="n"),
    "CancelGenerateRoot": _each("nonce", ["", "\0", "n" * 100_000], INVALID),
}  # fmt: skip

# Nothing in them to get wrong.
WITHOUT_INPUT = {
    "GetHealth", "GetReady", "GetSealStatus", "LookupSelf", "RevokeSelf", "Seal", "ExportKey",
    "ReadKubernetesConfig",
    # Whatever is wrong with it, it is one and the same refusal (below).
    "LoginAppRole",
    "GetCheckpoint", "GetPublicKey", "RotateAuditKey",
    "RotateKeys", "GetKeyStatus",
}  # fmt: skip

WRONG_TYPES: list[tuple[str, str, str]] = [
    ("PUT", "/v1/secrets/bad/w", '{"value": 5}'),
    ("PUT", "/v1/secrets/bad/w", '{"value": "x", "cas": "one"}'),
    ("PUT", "/v1/secrets/bad/w", '{"data": "text"}'),
    ("PUT", "/v1/secrets/bad/w", '{"data": [1]}'),
    ("PUT", "/v1/secrets/bad/w", '{"binary": "not base64!"}'),
    ("PUT", "/v1/secrets/bad/w", "{"),
    ("PUT", "/v1/secrets/bad/w", ""),
    ("PUT", "/v1/secrets/bad/w", "null"),
    ("PUT", "/v1/secrets/bad/w", '{"data": ' + '{"a":' * 40 + "1" + "}" * 40 + "}"),
    ("PUT", "/v1/secrets/bad/w", '{"data": ' + '{"a":' * 4000 + "1" + "}" * 4000 + "}"),
    ("PUT", "/v1/secrets/bad/w", '{"value": "x", "cas": 99999999999}'),
    ("PATCH", "/v1/secrets-metadata/bad/r", '{"max_versions": "many"}'),
    ("PATCH", "/v1/secrets-metadata/bad/r", '{"custom": ["a"]}'),
    ("PATCH", "/v1/secrets-metadata/bad/r", '{"cas_required": "perhaps"}'),
    ("POST", "/v1/secrets-undelete/bad/r", '{"versions": "one"}'),
    ("POST", "/v1/secrets-destroy/bad/r", '{"versions": {"a": 1}}'),
    ("POST", "/v1/tokens", '{"policies": 5}'),
    ("POST", "/v1/tokens", '{"policies": ["default"], "num_uses": "x"}'),
    ("POST", "/v1/tokens", '{"policies": ["default"], "orphan": "maybe"}'),
    ("PUT", "/v1/policies/bad", '{"rules": {"path": 5}}'),
    ("PUT", "/v1/policies/bad", '{"rules": ["secret/*"]}'),
    ("POST", "/v1/sys/unseal", '{"share": 5}'),
    ("POST", "/v1/sys/unseal", '{"reset": "x", "share": ""}'),
    ("POST", "/v1/sys/init", '{"shares": "three"}'),
    ("POST", "/v1/sys/rekey/init", '{"share": 5}'),
    ("POST", "/v1/sys/rekey/init", '{"share": "", "threshold": "two"}'),
    ("POST", "/v1/sys/generate-root/cancel", '{"nonce": {}}'),
    ("GET", "/v1/secrets/bad/r?version=one", ""),
    ("GET", "/v1/secrets/bad/r?version=", ""),
    ("GET", "/v1/secrets/bad/r?version=99999999999", ""),
    ("DELETE", "/v1/secrets/bad/r?versions=1,2", ""),
    ("GET", "/v1/audit?limit=ten", ""),
    ("GET", "/v1/secrets-list/bad?recursive=perhaps", ""),
]
