"""The keys' life from outside: a term that runs out, ceremonies to their end over REST and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from services.seal.key_terms.wrap_counter import LIMIT, RETIRE_AT
from strongbox.store import keyspace
from tests.robustness.load import Load
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.expect import eventually, refused
from tests.support.store import Etcd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
_RULES = [{"path": "secret/*", "capabilities": ["read", "write"]}]


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """Three nodes for this module alone: shares and the root token change."""
    with Cluster.start(3) as running:
        yield running


@pytest.mark.parametrize("reserved", [RETIRE_AT, LIMIT], ids=["nearly used up", "used up"])
def test_a_term_whose_wraps_come_to_an_end_is_followed_by_the_duty(own: Cluster, reserved: int) -> None:
    """Nobody asks for it; the duty's holder dies while it is due; nothing stored is lost."""
    with own.rest(own.root_token, 2, Patience()) as root:
        root.call("PUT", "/v1/policies/worn", {"rules": _RULES})
        token = str(root.call("POST", "/v1/tokens", {"policies": ["worn"]})["token"])
        before = int(root.call("GET", "/v1/sys/key-status")["term"])
        with Load(own, token, clients=2, nodes=[0, 1]) as load:
            load.wait_for(5)
            holder = root.call("GET", "/v1/sys/health")["leaders"]["terms"]
            with Etcd(own) as etcd:
                etcd.put(keyspace.wraps(before), b"%d" % reserved)
            own.process(holder, "seal").kill()
            eventually(30, _require_term_after, root, before)
            load.wait_for(5)
        own.up(node=holder, unseal=False)
        load.require_exactly_once(root)
        found = root.call("GET", "/v1/audit", op="RotateKeys", limit=1000)["entries"]
        assert found, "a rotation by nobody's order is in the audit trail"


def _require_term_after(root: Any, term: int) -> None:
    status = root.call("GET", "/v1/sys/key-status")
    assert status["term"] > term, status


def test_ceremonies_to_their_end_over_rest_and_the_command(own: Cluster) -> None:
    """The root token is revoked and made again; shares are replaced twice; what was replaced is dead."""
    root = _new_root_tokens(own)
    shares = _rekeyed_over_rest(own, root)
    fresh = _rekeyed_by_command(own, root, shares)
    with own.rest(root) as rest:
        rest.write("made/again", "x")
    for dead in (own.shares[0], shares[0]):
        with own.rest() as rest:
            body = {"share": dead}
            refused("INVALID_ARGUMENT", rest.call, "POST", "/v1/sys/generate-root/init", body)
    assert len(set(fresh)) == 3


def _new_root_tokens(own: Cluster) -> str:
    """A root token that was made by shares after all before it were revoked."""
    first = own.root_token
    with own.rest(first) as root:
        root.call("DELETE", "/v1/tokens/self")
    with own.rest() as rest:
        begun = rest.call("POST", "/v1/sys/generate-root/init", {"share": own.shares[0]})
        assert not begun.get("root_token")
        body = {"nonce": begun["nonce"], "share": own.shares[1]}
        second = str(rest.call("POST", "/v1/sys/generate-root/update", body)["root_token"])
    with own.rest(second, 1) as root:
        assert root.call("GET", "/v1/tokens/self")["policies"] == ["root"]
        root.call("DELETE", "/v1/tokens/self")
    third = str(_command(own, "generate-root", said="\n".join(own.shares[:2]))["root_token"])
    for dead in (first, second):
        for node in range(3):
            with own.rest(dead, node) as rest:
                refused("UNAUTHENTICATED", rest.call, "GET", "/v1/tokens/self")
    return third


def _rekeyed_over_rest(own: Cluster, root: str) -> list[str]:
    """Five new shares, three of which unseal; a replica dies before they are given back."""
    with own.rest() as rest:
        begun = rest.call("POST", "/v1/sys/rekey/init", {"share": own.shares[0], "shares": 5, "threshold": 3})
        body = {"nonce": begun["nonce"], "share": own.shares[1]}
        made = [str(share) for share in rest.call("POST", "/v1/sys/rekey/update", body)["shares"]]
    assert len(set(made)) == 5
    own.process(own.node_ids[2], "seal").kill()
    with own.rest(patience=Patience()) as rest:
        for number, share in enumerate(made[:3]):
            told = rest.call("POST", "/v1/sys/rekey/verify", {"nonce": begun["nonce"], "share": share})
            assert bool(told.get("complete")) == (number == 2), told
    own.up(node=own.node_ids[2], unseal=False)
    _seal_and_open(own, root, made[2:], old=own.shares[0])
    return made


def _rekeyed_by_command(own: Cluster, root: str, shares: list[str]) -> list[str]:
    """Three new shares, two of which unseal."""
    flags = ("rekey", "--nonce-file", str(own.folder / "nonce"))
    begun = _command(own, "rekey", "--shares", "3", "--threshold", "2", said=shares[0])
    (own.folder / "nonce").write_text(begun["nonce"])
    made = [str(share) for share in _command(own, *flags, said="\n".join(shares[1:3]))["shares"]]
    assert _command(own, *flags, "--verify", said="\n".join(made[:2]))["complete"] is True
    _seal_and_open(own, root, made[1:], old=shares[0])
    return made


def _seal_and_open(own: Cluster, root: str, shares: list[str], old: str) -> None:
    with own.rest(root, 0, Patience()) as rest:
        assert rest.call("POST", "/v1/sys/seal", {})["sealed"] is True
    with own.rest() as rest:
        eventually(15, refused, "INVALID_ARGUMENT", rest.call, "POST", "/v1/sys/unseal", {"share": old})
    for number, share in enumerate(shares):
        with own.rest(node=number) as rest:
            eventually(15, rest.call, "POST", "/v1/sys/unseal", {"share": share})
    for node in range(3):
        with own.rest(root, node) as rest:
            eventually(30, rest.call, "GET", "/v1/tokens/self")


def _command(own: Cluster, *words: str, said: str) -> Any:
    """`strongbox operator …` as its own process, shares through its pipe; its JSON."""
    environment = {**os.environ, "STRONGBOX_ADDR": own.gateways[0]}
    done = subprocess.run(
        [sys.executable, "-m", "strongbox.cli", "operator", *words, "-o", "json"],
        input=said, capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
