"""S0: initialising."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from strongbox.crypto.shamir import Share, combine
from tests.scenarios.world import SHARES, THRESHOLD, World
from tests.support.canary import Canaries
from tests.support.clients import Refused
from tests.support.cluster_keys import keys_of
from tests.support.expect import eventually, outcome, refused


def one_time_init(world: World) -> None:
    """Of three inits at once at three nodes exactly one wins; whatever comes later is refused."""
    nonsense = [{"shares": 2, "threshold": 3}, {"shares": 3, "threshold": 1}, {"shares": 256}, {"shares": -1}]
    with world.rest() as rest:
        assert rest.call("GET", "/v1/sys/seal-status")["initialized"] is False
        refused("UNAVAILABLE/NOT_INITIALIZED", rest.read, "a")
        for numbers in nonsense:
            refused("INVALID_ARGUMENT", rest.call, "POST", "/v1/sys/init", numbers)
        assert rest.call("GET", "/v1/sys/seal-status")["initialized"] is False
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda node: _init(world, node), range(3)))
    made = [answer for answer in answers if isinstance(answer, dict)]
    assert len(made) == 1, f"{len(made)} inits succeeded"
    reasons = [answer.reason for answer in answers if isinstance(answer, Refused)]
    assert reasons == ["ALREADY_INITIALIZED"] * 2, f"the others were refused with {reasons}"
    world.shares, world.root_token = list(made[0]["shares"]), str(made[0]["root_token"])
    assert len(set(world.shares)) == SHARES
    assert made[0]["threshold"] == THRESHOLD
    assert world.root_token
    _require_refused_everywhere(world)


def _init(world: World, node: int) -> dict[str, Any] | Refused:
    with world.rest(node=node) as rest:
        try:
            return rest.call("POST", "/v1/sys/init", {"shares": SHARES, "threshold": THRESHOLD})
        except Refused as refusal:
            return refusal


def _require_refused_everywhere(world: World) -> None:
    for node in range(3):
        with world.rest(node=node) as rest, world.grpc(node=node) as native:
            assert rest.call("GET", "/v1/sys/seal-status")["initialized"] is True
            refused("INVALID_ARGUMENT/ALREADY_INITIALIZED", rest.call, "POST", "/v1/sys/init", {})
            refused("INVALID_ARGUMENT/ALREADY_INITIALIZED", native.call, "Initialize")


def nothing_left_behind(world: World) -> str:
    """After traffic of every kind, good and bad, the secrets are in no byte that anybody could find."""
    cluster = world.unsealed()
    secrets: dict[str, str | bytes] = {
        "value": "canary-value-Zk3vQ9",
        "data": "canary-data-Lm8wR2",
        "binary": b"canary-binary-\xff\xfe\x01Xp5",
        "bad JSON": "canary-syntax-Tg6yU1",
        "wrong type": "canary-type-Bn4sD7",
        "refused": "canary-refused-Hj2kF5",
        "root token": world.root_token,
    }
    secrets["child token"] = _traffic(world, secrets)
    for number, share in enumerate(world.shares):
        secrets[f"share {number}"] = share
        secrets[f"share {number} raw"] = Share.decode(share).data
    opening = [Share.decode(share) for share in world.shares[:THRESHOLD]]
    secrets["unseal key"] = combine(opening)
    secrets |= keys_of(cluster, opening)
    found = Canaries(secrets).search([cluster.folder], cluster.pids, exempt=[cluster.folder / "init.json"])
    # Three members, their logs and WALs, fifteen services, three gateways.
    found.require_clean(least_files=3 * 7)
    return f"{found.files} files, {found.bytes >> 20} MiB searched"


def _traffic(world: World, secrets: Mapping[str, Any]) -> str:
    """Good and bad requests that carry the canaries; the child token that was made."""
    token = str(world.token([{"path": "secret/canary/*", "capabilities": ["read", "write"]}])["token"])
    with world.rest(token) as rest, world.grpc(token, node=1) as native:
        rest.write("canary/value", secrets["value"])
        rest.call("PUT", "/v1/secrets/canary/data", {"data": {"deep": [secrets["data"]]}})
        native.call("WriteSecret", path="canary/binary", binary=secrets["binary"])
        assert eventually(10, rest.read, "canary/value")["value"] == secrets["value"]
        assert native.call("ReadSecret", path="canary/binary").binary == secrets["binary"]
        rest.raw(
            "PUT", "/v1/secrets/canary/value", b'{"value": "' + secrets["bad JSON"].encode() + b'" oops}'
        )
        rest.raw("PUT", "/v1/secrets/canary/value", f'{{"cas": "{secrets["wrong type"]}"}}'.encode())
        for number, junk in enumerate((world.shares[4], world.shares[4][:-2], world.shares[4] + "A")):
            with world.rest(node=number) as open_rest:
                outcome(open_rest.call, "POST", "/v1/sys/unseal", {"share": junk})
        assert outcome(rest.write, "canary/value", secrets["refused"], cas=77)
        assert outcome(rest.write, "elsewhere", secrets["refused"])
        assert outcome(native.call, "WriteSecret", path="a//b", value=secrets["refused"])
    return token
