"""S4: revocation, at once and everywhere."""

from __future__ import annotations

from typing import Any

from tests.scenarios.world import World
from tests.support.clients import GrpcClient, RestClient
from tests.support.expect import eventually, refused

_RULES: list[dict[str, Any]] = [
    {"path": "secret/s4/*", "capabilities": ["read", "write"]},
    {"path": "auth/tokens", "capabilities": ["write"]},
]


def on_the_very_next_request(world: World) -> str:
    """1,000 revocations, each at one node, each tried at the next node at once: REST and gRPC in turn."""
    world.unsealed()
    times = 60 if world.short else 1000
    policy = world.token(_RULES)["policies"][0]
    rest = [world.rest(world.root_token, node) for node in range(3)]
    rest[0].write("s4/one", "x")
    for number in range(times):
        made = rest[number % 3].call("POST", "/v1/tokens", {"policies": [policy], "ttl": "10m"})
        _revoke_and_try(world, rest[number % 3], made, number)
    for client in rest:
        client.close()
    return f"{times} times"


def _revoke_and_try(world: World, root: RestClient, made: dict[str, Any], number: int) -> None:
    token, other = str(made["token"]), (number + 1) % 3
    with world.rest(token, other) as rest, world.grpc(token, other) as native:
        assert _read(rest, native, number) == "x"  # known there, and in its memory
        root.call("DELETE", f"/v1/tokens/{made['accessor']}")
        refused("UNAUTHENTICATED/UNAUTHENTICATED", _read, rest, native, number)
        if number % 50 == 0:
            for node in range(3):
                with world.rest(token, node) as there, world.grpc(token, node) as native_there:
                    refused("UNAUTHENTICATED", there.read, "s4/one")
                    refused("UNAUTHENTICATED", native_there.call, "LookupSelf")


def _read(rest: RestClient, native: GrpcClient, number: int) -> str:
    if number % 2:
        return str(native.call("ReadSecret", path="s4/one").value)
    return str(rest.read("s4/one")["value"])


def children_and_leases(world: World) -> None:
    """Three generations die with the eldest; what they held is revoked."""
    world.unsealed()
    family = [world.token(_RULES, ttl="10m")]
    for _ in range(2):
        with world.rest(str(family[-1]["token"])) as rest:
            body = {"policies": family[0]["policies"], "ttl": "10m"}
            family.append(rest.call("POST", "/v1/tokens", body))
    with world.rest(world.root_token) as root:
        root.write("s4/held", "x")
        leases = []
        for number, member in enumerate(family):
            with world.rest(str(member["token"]), number) as rest:
                leases.append(str(rest.read("s4/held")["lease"]["id"]))
        states = [root.call("GET", f"/v1/leases/{lease}")["state"] for lease in leases]
        assert states == ["ACTIVE"] * 3
        root.call("DELETE", f"/v1/tokens/{family[0]['accessor']}")
        for number, member in enumerate(family):
            with world.rest(str(member["token"]), (number + 1) % 3) as rest:
                refused("UNAUTHENTICATED", rest.read, "s4/held")
        for lease in leases:
            eventually(15, _require_revoked, root, lease)


def _require_revoked(root: RestClient, lease: str) -> None:
    state = root.call("GET", f"/v1/leases/{lease}")["state"]
    assert state == "REVOKED", f"a lease of a revoked token is {state}"
