"""Every RPC that needs a token, without one and with one that is none: refused before any work.

No data key is wrapped (the term's count of wraps stands still; one that no value was sealed under waits in kv
for the next writer, so writes of strangers cost one together), and nothing is put but what StrongBox puts by
itself (time, sessions, marks) and the fixed slots that count refusals by address. An RPC that is added is
here by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from strongbox.access.token_format import new_token
from strongbox.store import keyspace
from tests.support.clients import GrpcClient, Patience
from tests.support.cluster import Cluster
from tests.support.expect import eventually, outcome
from tests.support.samples import FIELDS, message_of
from tests.support.store import Etcd
from tests.support.surface import Rpc, public_rpcs, rpc_named

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
GUARDED = [rpc for rpc in public_rpcs() if rpc.rule.token_required]
STEADY = 3.0  # seconds
TIMES = 3  # of each call: a wrap that one of them costs shows as several
# What makes a call dear, and is in no sample: a reviewer's token is sealed under a data key.
COSTLY = {"WriteKubernetesConfig": {"token_reviewer_jwt": "e30.e30.e30"}}
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
    """How many wraps the term in use has, once what was done before is told (each second)."""
    seen, since = -1, 0.0

    def steady() -> int:
        nonlocal seen, since
        told = int(root.call("GetKeyStatus").wraps)
        if told != seen:
            seen, since = told, time.monotonic()
        assert time.monotonic() - since > STEADY
        return told

    return int(eventually(60, steady))


def _require_begun(own: Cluster) -> None:
    """The audit service makes its two keys by itself, which are wrapped."""
    with Etcd(own) as etcd:
        assert {keyspace.AUDIT_KEY, keyspace.AUDIT_SIGNING_KEY} <= set(etcd.rows())


def _effects(own: Cluster) -> dict[bytes, bytes]:
    with Etcd(own) as etcd:
        return {key: value for key, value in etcd.rows().items() if key.startswith(EFFECTS)}


def _recorded(root: GrpcClient) -> set[str]:
    """The operations in the audit trail."""
    return {entry.op for entry in root.call("ListEntries", limit=1000).entries}


@pytest.mark.parametrize("token", ["", new_token()], ids=["none", "junk"])
def test_nothing_is_done_for_who_is_not_authenticated(own: Cluster, root: GrpcClient, token: str) -> None:
    eventually(60, _require_begun, own)
    with own.grpc(token, 0, Patience()) as stranger:
        _require_refused(stranger, rpc_named("WriteSecret"))  # leaves the one key that waits
        effects, recorded = _effects(own), _recorded(root)
        assert _costly(stranger, root, GUARDED) == []
    assert _effects(own) == effects
    assert _recorded(root) - recorded <= {"GetKeyStatus", "ListEntries", "CountUnauthenticated"}


def _costly(stranger: GrpcClient, root: GrpcClient, rpcs: Sequence[Rpc]) -> list[str]:
    """Which of them cost a wrap, found by halves; each is refused."""
    before = _wraps(root)
    for rpc in rpcs:
        for _ in range(TIMES):
            _require_refused(stranger, rpc)
    if _wraps(root) == before:
        return []
    if len(rpcs) == 1:
        return [rpcs[0].name]
    half = len(rpcs) // 2
    return _costly(stranger, root, rpcs[:half]) + _costly(stranger, root, rpcs[half:])


def _require_refused(stranger: GrpcClient, rpc: Rpc) -> None:
    fields = {**FIELDS[rpc.name], **COSTLY.get(rpc.name, {})}
    told = outcome(stranger.send, rpc, message_of(rpc, fields), 8.0)
    assert told is not None, str(rpc)
    assert told.code == "UNAUTHENTICATED", f"{rpc}: {told}"
