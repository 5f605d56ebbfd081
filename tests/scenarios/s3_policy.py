"""S3: policies and the lives of tokens."""

from __future__ import annotations

import time
from typing import Any

from tests.scenarios.world import World
from tests.support.expect import eventually, refused

_RW = ["read", "write"]
# Rules, then what they mean: (path, capability, allowed).
_EDGES: list[tuple[list[dict[str, Any]], list[tuple[str, str, bool]]]] = [
    (
        [{"path": "secret/app/*", "capabilities": _RW}],
        [
            ("app/one", "write", True), ("app/one", "read", True), ("app/deep/er/one", "write", True),
            ("app", "write", False), ("apple", "write", False), ("App/one", "write", False),
            ("other/app/one", "write", False), ("app/one", "delete", False), ("app/one", "metadata", False),
            ("app/", "list", False),
        ],
    ),
    (
        [{"path": "secret/+/shared", "capabilities": _RW}],
        [
            ("team/shared", "write", True), ("team/shared/more", "write", False), ("shared", "write", False),
            ("a/b/shared", "write", False), ("team/sharedx", "write", False),
        ],
    ),
    (
        [
            {"path": "secret/mix/*", "capabilities": [*_RW, "list"]},
            {"path": "secret/mix/closed/*", "capabilities": ["deny"]},
            {"path": "secret/mix/closed/door", "capabilities": ["read"]},
            {"path": "secret/mix/+/window", "capabilities": ["deny"]},
        ],
        [
            ("mix/open", "write", True), ("mix/closed/x", "read", False), ("mix/closed/x", "write", False),
            ("mix/closed/door", "read", True), ("mix/closed/door", "write", False),
            ("mix/some/window", "read", False), ("mix/some/windows", "write", True), ("mix/", "list", True),
            ("mix/closed/", "list", False),
        ],
    ),
    ([{"path": "secret/*", "capabilities": ["list"]}], [("", "list", True), ("x", "read", False)]),
]  # fmt: skip


def there_and_nowhere_else(world: World) -> None:
    """Every edge over REST and gRPC, each at another node; 403 whether or not the path exists."""
    world.unsealed()
    paths = {path for _, edges in _EDGES for path, _, _ in edges if path and not path.endswith("/")}
    with world.rest(world.root_token) as root:
        for path in paths:
            root.write(path, "by root")
    for rules, edges in _EDGES:
        token = str(world.token(rules)["token"])
        for number, (path, capability, allowed) in enumerate(edges):
            _require_edge(world, token, number, path, capability, allowed)
    _require_filtered_listing(world)
    _require_nothing_else(world)


def _require_edge(world: World, token: str, number: int, path: str, capability: str, allowed: bool) -> None:
    with world.rest(token, number % 3) as rest, world.grpc(token, (number + 1) % 3) as native:
        attempts = {
            "read": (lambda: rest.read(path), lambda: native.call("ReadSecret", path=path)),
            "write": (
                lambda: rest.write(path, "x"),
                lambda: native.call("WriteSecret", path=path, value="x"),
            ),
            "delete": (
                lambda: rest.call("DELETE", f"/v1/secrets/{path}"),
                lambda: native.call("DeleteSecretVersions", path=path),
            ),
            "metadata": (
                lambda: rest.call("GET", f"/v1/secrets-metadata/{path}"),
                lambda: native.call("ReadSecretMetadata", path=path),
            ),
            "list": (
                lambda: rest.call("GET", f"/v1/secrets-list/{path.rstrip('/')}".rstrip("/")),
                lambda: native.call("ListSecrets", prefix=path),
            ),
        }[capability]
        for attempt in attempts:
            if allowed:
                attempt()
            else:
                refused("PERMISSION_DENIED/PERMISSION_DENIED", attempt)


def _require_filtered_listing(world: World) -> None:
    rules = [
        {"path": "secret/mix/*", "capabilities": ["list"]},
        {"path": "secret/mix/closed/*", "capabilities": ["deny"]},
        {"path": "secret/mix/open", "capabilities": ["deny"]},
    ]
    token = str(world.token(rules)["token"])
    with world.rest(token) as rest:
        names = rest.call("GET", "/v1/secrets-list/mix", recursive="true")["names"]
        assert "open" not in " ".join(names), "a name under deny was listed"
        assert not any("door" in name for name in names), "a name below a denied directory was listed"
        assert any("windows" in name for name in names)


def _require_nothing_else(world: World) -> None:
    token = str(world.token([{"path": "secret/app/*", "capabilities": [*_RW, "list", "delete"]}])["token"])
    with world.rest(token) as rest:
        for method, path, body in (
            ("GET", "/v1/policies/root", None), ("GET", "/v1/policies", None), ("GET", "/v1/tokens", None),
            ("PUT", "/v1/policies/mine", {"rules": []}), ("POST", "/v1/tokens", {"policies": ["root"]}),
            ("POST", "/v1/sys/seal", {}), ("GET", "/v1/audit", None), ("POST", "/v1/audit/export-key", {}),
            ("GET", "/v1/secrets-list", None), ("POST", "/v1/secrets-destroy/app/one", {"versions": [1]}),
        ):  # fmt: skip
            refused("PERMISSION_DENIED", rest.call, method, path, body)
        assert rest.call("GET", "/v1/tokens/self")["policies"]


def tokens_die(world: World) -> None:
    """A TTL ends a token at every node, renewed or not; a child has no more than its parent."""
    world.unsealed()
    rules = [
        {"path": "secret/ttl/*", "capabilities": _RW},
        {"path": "auth/tokens", "capabilities": ["write"]},
    ]
    made = world.token(rules, ttl="2s", max_ttl="4s")
    token, until = str(made["token"]), time.monotonic() + 2.0
    with world.rest(token) as rest:
        rest.write("ttl/one", "x")
        child = rest.call("POST", "/v1/tokens", {"policies": made["policies"], "ttl": "1h"})
        assert child["ttl"] <= 2, "a child outlives its parent"
        refused("PERMISSION_DENIED", rest.call, "POST", "/v1/tokens", {"policies": ["root"]})
        refused(
            "PERMISSION_DENIED",
            rest.call,
            "POST",
            "/v1/tokens",
            {"policies": made["policies"], "orphan": True},
        )
        time.sleep(1.0)
        assert rest.call("POST", "/v1/tokens/self/renew", {"increment": "1h"})["ttl"] <= 3
        time.sleep(max(0.0, until + 0.3 - time.monotonic()))
        rest.read("ttl/one")  # the renewal counts
    for node in range(3):
        for dead in (token, str(child["token"])):
            with world.rest(dead, node) as rest, world.grpc(dead, node) as native:
                eventually(5, refused, "UNAUTHENTICATED", rest.read, "ttl/one")
                refused("UNAUTHENTICATED", native.call, "ReadSecret", path="ttl/one")
    with world.rest(world.root_token) as root:
        refused("NOT_FOUND", root.call, "GET", f"/v1/tokens/{made['accessor']}")
