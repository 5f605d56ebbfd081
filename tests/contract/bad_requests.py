"""Bad requests by RPC: what each must refuse, with which reason, whoever asks and however it is sent.

Over gRPC all of `NATIVE`; over REST the same where the request can be written as JSON at all, and besides
what only JSON can get wrong (types, syntax), in `WRONG_TYPES`.
"""

from __future__ import annotations

from typing import Any

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


def _each(field: str, values: list[Any], reason: str, **rest: Any) -> list[Bad]:
    return [({**rest, field: value}, reason) for value in values]


def _versions(**rest: Any) -> list[Bad]:
    lists = [[0], [-1], [1, -2], list(range(1, 5000))]
    return _each("versions", lists, INVALID, **rest)


_PAGES = [*_each("page_size", [-1, 1001], INVALID), *_each("page_token", ["!", "\x00", "A" * 5000], INVALID)]

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
        ({"name": "bad", "rules": [{"path": "secret/x", "capabilities": ["read"]}] * 5000}, INVALID),
    ],
    "ReadPolicy": _each("name", NAMES, INVALID),
    "DeletePolicy": [*_each("name", NAMES, INVALID), *_each("name", ["root", "default"], INVALID)],
    "ListPolicies": _PAGES,
    "GetLease": _each("id", IDS, "NOT_FOUND"),
    "ListLeases": [
        ({}, INVALID), ({"path": "secret/a", "accessor": "A" * 24}, INVALID),
        *[({**fields, "path": "secret/bad"}, reason) for fields, reason in _PAGES],
        ({"path": "secret/bad", "state": "SLEEPING"}, INVALID),
    ],
    "RevokeLease": _each("id", IDS, "NOT_FOUND"),
    "ListEntries": [
        ({"from_index": -1}, INVALID), ({"limit": -1}, INVALID), ({"limit": 1001}, INVALID),
    ],
    "Unseal": _each("share", ["", "nonsense", "A" * 46, "A" * 5000], "any"),
    "Initialize": _each("shares", [-1, 256], "any"),
}  # fmt: skip

# Nothing in them to get wrong.
WITHOUT_INPUT = {
    "GetHealth", "GetReady", "GetSealStatus", "LookupSelf", "RevokeSelf", "Seal", "ExportKey",
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
    ("GET", "/v1/secrets/bad/r?version=one", ""),
    ("GET", "/v1/secrets/bad/r?version=", ""),
    ("GET", "/v1/secrets/bad/r?version=99999999999", ""),
    ("DELETE", "/v1/secrets/bad/r?versions=1,2", ""),
    ("GET", "/v1/audit?limit=ten", ""),
    ("GET", "/v1/secrets-list/bad?recursive=perhaps", ""),
]
