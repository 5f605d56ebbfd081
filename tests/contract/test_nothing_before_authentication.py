"""Every RPC that needs a token, without one and with one that is none: refused before any work.

No data key is wrapped (the term's count of wraps stands still), and nothing is put but what StrongBox puts by
itself (time, sessions, marks) and the fixed slots that count refusals by address. An RPC that is added is
here by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from strongbox.access.tokens import new_token
from strongbox.store import keyspace
from tests.support.clients import GrpcClient, Patience
from tests.support.cluster import Cluster
from tests.support.expect import eventually, outcome
from tests.support.samples import FIELDS, message_of
from tests.support.store import Etcd
from tests.support.surface import Rpc, public_rpcs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
GUARDED = [rpc for rpc in public_rpcs() if rpc.rule.token_required]
TIMES = 3  # of each call: a wrap that one of them costs shows as several
# What callers have an effect on; everything else moves by itself.
EFFECTS = (
    keyspace.ROOT + b"kv/",
    keyspace.ROOT + b"auth/",
    keyspace.ROOT + b"lease/",
    keyspace.SEAL_STATE,
    keyspace.SEAL_CONFIG,
    keyspace.SEAL_KEYRING,
    keyspace.SEAL_RECORD_KEY,
    keyspace.SEAL_CEREMONIES,
    keyspace.AUDIT_KEY,
    keyspace.AUDIT_SIGNING_KEY,
)


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """One node for this module alone: nothing is due there, so nothing moves that nobody asked for."""
    with Cluster.start(1) as running:
        yield running


@pytest.fixture
def root(own: Cluster) -> Iterator[GrpcClient]:
    with own.grpc(own.root_token, 0, Patience()) as client:
        yield client


def _wraps(root: GrpcClient) -> int:
    """How many wraps the term in use has, once it has stopped counting what was done before."""
    seen: list[int] = []

    def steady() -> int:
        seen.append(int(root.call("GetKeyStatus").wraps))
        assert seen[-3:] == seen[-1:] * 3
        return seen[-1]

    return int(eventually(30, steady))


def _effects(own: Cluster) -> dict[bytes, bytes]:
    with Etcd(own) as etcd:
        return {key: value for key, value in etcd.rows().items() if key.startswith(EFFECTS)}


def _recorded(root: GrpcClient) -> set[str]:
    """The operations in the audit trail."""
    return {entry.op for entry in root.call("ListEntries", limit=1000).entries}


@pytest.mark.parametrize("token", ["", new_token()], ids=["none", "junk"])
def test_nothing_is_done_for_who_is_not_authenticated(own: Cluster, root: GrpcClient, token: str) -> None:
    guilty: list[str] = []
    wraps, effects, recorded = _wraps(root), _effects(own), _recorded(root)
    with own.grpc(token, 0, Patience()) as stranger:
        for rpc in GUARDED:
            for _ in range(TIMES):
                _require_refused(stranger, rpc)
        assert _effects(own) == effects
        after = _wraps(root)
        if after != wraps:
            guilty = [rpc.name for rpc in GUARDED if _costs_a_wrap(stranger, root, rpc)]
    assert guilty == []
    assert after == wraps
    assert _recorded(root) - recorded <= {"GetKeyStatus", "ListEntries", "CountUnauthenticated"}


def _require_refused(stranger: GrpcClient, rpc: Rpc) -> None:
    told = outcome(stranger.send, rpc, message_of(rpc, FIELDS[rpc.name]), 8.0)
    assert told is not None, str(rpc)
    assert told.code == "UNAUTHENTICATED", f"{rpc}: {told}"


def _costs_a_wrap(stranger: GrpcClient, root: GrpcClient, rpc: Rpc) -> bool:
    before = int(root.call("GetKeyStatus").wraps)
    for _ in range(TIMES):
        _require_refused(stranger, rpc)
    return int(root.call("GetKeyStatus").wraps) > before
