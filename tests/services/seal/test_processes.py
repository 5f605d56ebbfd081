"""Three seal processes over a real etcd: init, unseal, seal, kill, stop, cut off, restart."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from strongbox.crypto.envelope import Dek
from strongbox.crypto.shamir import Share
from strongbox.errors import StrongBoxError
from strongbox.rpc.key_client import KeyClient
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.seal.nodes import SealNode, SealNodes


@pytest.fixture
def nodes() -> Iterator[SealNodes]:
    with SealNodes() as found:
        yield found


def reason(refusal: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    """The ErrorInfo's reason of a refused call."""
    trailing: Any = refusal.value.trailing_metadata()
    told = dict(trailing)
    for detail in status_pb2.Status.FromString(told["grpc-status-details-bin"]).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def bearer(made: pb.InitializeResponse) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {made.root_token}"),)


def seal(node: SealNode, made: pb.InitializeResponse) -> pb.SealResponse:
    return node.ask.Seal(pb.SealRequest(), timeout=5, metadata=bearer(made))


def everything(nodes: SealNodes) -> bytes:
    """All of etcd."""

    async def read() -> bytes:
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        try:
            found = await etcd.range(keyspace.ROOT, keyspace.prefix_end(keyspace.ROOT))
            return b"\n".join(row.key + b"=" + row.value for row in found.rows)
        finally:
            await etcd.close()

    return asyncio.run(read())


def test_init_and_unseal_by_shares_to_different_nodes(nodes: SealNodes) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        nodes[0].unseal(Share(1, bytes(32)).encode())
    assert reason(refusal) == "NOT_INITIALIZED"
    with pytest.raises(grpc.RpcError) as refusal:
        nodes.init(shares=2, threshold=3)
    assert reason(refusal) == "INVALID_ARGUMENT"

    made = nodes.init()
    assert (len(made.shares), made.threshold, nodes[1].status().progress) == (3, 2, "0/2")
    with pytest.raises(grpc.RpcError) as refusal:
        nodes[1].ask.Initialize(pb.InitializeRequest(), timeout=5)
    assert reason(refusal) == "ALREADY_INITIALIZED"

    first = nodes[0].unseal(made.shares[0])
    assert (first.sealed, first.progress) == (True, "1/2")
    # Wrong, malformed and repeated ones, to every node: each is refused alone.
    wrong = [Share(n, bytes(32)).encode() for n in (1, 2, 3, 4)]
    for node in nodes.all:
        for text, why in [
            *((w, "WRONG_SHARE") for w in wrong),
            ("", "INVALID_ARGUMENT"),
            ("?", "INVALID_ARGUMENT"),
            (made.shares[0], "REPEATED_SHARE"),
        ]:
            with pytest.raises(grpc.RpcError) as refusal:
                node.unseal(text)
            assert reason(refusal) == why
        assert (node.status().progress, node.status().nonce) == ("1/2", first.nonce)
    assert all(node.is_sealed() for node in nodes.all)

    last = nodes[1].unseal(made.shares[2])
    assert (last.sealed, last.progress) == (False, "0/2")
    assert [node.is_sealed() for node in nodes.all] == [False] * 3
    assert nodes[2].unseal(made.shares[1]) == last

    stored, logs = everything(nodes), nodes.logs()
    for secret in (*made.shares, made.root_token):
        assert secret.encode() not in stored
        assert secret not in logs
    for share in made.shares:
        assert Share.decode(share).data not in stored


def test_a_reset_begins_anew_and_needs_a_valid_share(nodes: SealNodes) -> None:
    made = nodes.init()
    before = nodes[0].unseal(made.shares[0])
    with pytest.raises(grpc.RpcError):
        nodes[1].unseal(Share(1, bytes(32)).encode(), reset=True)
    assert nodes[1].status().nonce == before.nonce
    after = nodes[1].unseal(made.shares[1], reset=True)
    assert (after.sealed, after.progress) == (True, "0/2")
    second = nodes[2].unseal(made.shares[1])
    assert (second.sealed, second.progress) == (True, "1/2")
    assert second.nonce != before.nonce
    assert not nodes[0].unseal(made.shares[0]).sealed


def test_sealing_wipes_every_replica_and_replaces_its_process(nodes: SealNodes) -> None:
    made = nodes.unsealed()
    pids = [node.pid for node in nodes.all]
    with pytest.raises(grpc.RpcError) as refusal:
        nodes[0].ask.Seal(pb.SealRequest(), timeout=5)
    assert reason(refusal) == "UNAUTHENTICATED"
    told = seal(nodes[1], made)
    assert (list(told.confirmed), list(told.unconfirmed)) == (["node-1", "node-2", "node-3"], [])
    assert [node.is_sealed() for node in nodes.all] == [True] * 3
    nodes.wait(lambda: len(nodes.lines("serving")) == 6, 25)
    nodes.wait(lambda: all(node.is_sealed() for node in nodes.all))
    assert [node.pid for node in nodes.all] == pids
    with pytest.raises(grpc.RpcError) as refusal:
        seal(nodes[0], made)
    assert reason(refusal) == "SEALED"
    # The same shares open it again.
    nodes.wait(lambda: sum(one.live for one in nodes[0].health().nodes) == 3)
    nodes[2].unseal(made.shares[1])
    assert not nodes[0].unseal(made.shares[2]).sealed
    assert [node.is_sealed() for node in nodes.all] == [False] * 3


def test_unsealed_again_at_once_no_process_is_replaced(nodes: SealNodes) -> None:
    made = nodes.unsealed()
    seal(nodes[1], made)
    nodes[0].unseal(made.shares[0])
    assert not nodes[2].unseal(made.shares[1]).sealed
    assert [node.is_sealed() for node in nodes.all] == [False] * 3
    time.sleep(7.5)
    assert len(nodes.lines("serving")) == 3
    assert len(nodes.lines("the keys are wiped")) == 3


def test_shares_survive_the_replacement_of_each_process_in_turn(nodes: SealNodes) -> None:
    made = nodes.init()
    nodes[0].unseal(made.shares[0])
    for node in nodes.all:
        served = len(nodes.lines("serving"))
        node.kill()
        node.start()
        nodes.wait(lambda served=served: len(nodes.lines("serving")) > served)  # type: ignore[misc]
        nodes.wait(lambda: sum(one.live for one in nodes[0].health().nodes) == 3)
        time.sleep(0.5)
    assert not nodes[1].unseal(made.shares[1]).sealed


def test_a_killed_replica_is_named_unconfirmed_and_comes_back_sealed(nodes: SealNodes) -> None:
    made = nodes.unsealed()
    nodes[2].kill()
    started = time.monotonic()
    told = seal(nodes[0], made)
    assert time.monotonic() - started >= 2
    assert (list(told.confirmed), list(told.unconfirmed)) == (["node-1", "node-2"], ["node-3"])
    nodes[2].start()
    nodes.wait(lambda: nodes[2].is_sealed() is True)


def test_a_replica_that_restarts_is_unsealed_by_a_peer(nodes: SealNodes) -> None:
    nodes.unsealed()
    nodes[1].kill()
    nodes[1].start()
    nodes.wait(lambda: nodes[1].is_sealed() is False)
    assert len(nodes.lines("the root key was given to a peer")) == 1
    assert b"PeerUnseal" in everything(nodes)


def test_without_peer_unseal_a_replica_that_restarts_takes_shares(nodes: SealNodes) -> None:
    made = nodes.init()
    for node in nodes.all:
        node.kill()
        node.settings["PEER_UNSEAL"] = "false"
        node.start()
    nodes.wait(lambda: all(node.is_sealed() for node in nodes.all))
    nodes.wait(lambda: sum(one.live for one in nodes[0].health().nodes) == 3)
    for node, share in zip(nodes.all, made.shares[:2], strict=False):
        node.unseal(share)
    nodes[2].kill()
    nodes[2].start()
    nodes.wait(lambda: nodes[2].is_sealed() is True)
    nodes.wait(lambda: sum(one.live for one in nodes[0].health().nodes) == 3)
    assert not nodes[0].unseal(made.shares[0]).sealed
    assert nodes[2].is_sealed()
    assert not nodes[1].unseal(made.shares[1]).sealed
    nodes.wait(lambda: nodes[2].is_sealed() is False, 3)
    assert not nodes.lines("the root key was given to a peer")


def test_shares_that_died_with_everybody_are_asked_for_again(nodes: SealNodes) -> None:
    made = nodes.init()
    nodes[0].unseal(made.shares[0])
    for node in nodes.all:
        node.kill()
        node.start()
    nodes.wait(lambda: all(node.is_sealed() for node in nodes.all))
    nodes.wait(lambda: sum(one.live for one in nodes[0].health().nodes) == 3)
    # Whether it was counted before or not: what nobody holds any more is taken.
    again = nodes[2].unseal(made.shares[0])
    assert (again.sealed, again.progress) == (True, "1/2")
    with pytest.raises(grpc.RpcError) as refusal:
        nodes[1].unseal(made.shares[0])
    assert reason(refusal) == "REPEATED_SHARE"
    for node in nodes.all:
        node.kill()
        node.start()
    nodes.wait(lambda: all(node.is_sealed() for node in nodes.all))
    nodes.wait(lambda: sum(one.live for one in nodes[0].health().nodes) == 3)
    told = nodes[0].unseal(made.shares[1])
    assert (told.sealed, told.progress) == (True, "1/2")
    assert not nodes[1].unseal(made.shares[0]).sealed


def test_the_repetition_of_one_call_gets_the_answer_of_the_first(nodes: SealNodes) -> None:
    made = nodes.init()
    mine = (("idempotency-key", "the-same-call"),)
    request = pb.UnsealRequest(share=made.shares[0])
    answers = [node.ask.Unseal(request, timeout=5, metadata=mine) for node in (*nodes.all, nodes[0])]
    assert {(one.sealed, one.progress, one.nonce) for one in answers} == {(True, "1/2", answers[0].nonce)}
    with pytest.raises(grpc.RpcError) as refusal:
        nodes[0].unseal(made.shares[0])
    assert reason(refusal) == "REPEATED_SHARE"


def test_a_restart_of_everything_is_sealed_and_opens_by_shares(nodes: SealNodes) -> None:
    made = nodes.unsealed()
    for node in nodes.all:
        node.kill()
    for node in nodes.all:
        node.start()
    nodes.wait(lambda: all(node.is_sealed() for node in nodes.all))
    for node, share in zip(nodes.all, made.shares[:2], strict=False):
        told = node.unseal(share)
    assert not told.sealed
    nodes.wait(lambda: all(node.is_sealed() is False for node in nodes.all), 6)


def test_without_etcd_nothing_is_unwrapped_and_ten_seconds_wipe(nodes: SealNodes) -> None:
    made = nodes.unsealed()
    member = nodes.etcd.members[0]
    member.pause()
    try:
        began = time.monotonic()
        time.sleep(0.2)
        started = time.monotonic()
        health = nodes[0].health()
        assert time.monotonic() - started < 1
        assert (health.initialized, health.ready, health.sealed) == (True, False, False)
        time.sleep(max(0.0, began + 3 - time.monotonic()))
        assert asyncio.run(_unwrap(nodes)) in ("NO_QUORUM", "DEPENDENCY_DOWN")
        nodes.wait(lambda: len(nodes.lines("the keys are wiped")) == 3, 12)
        assert time.monotonic() - began < 11
        assert nodes[0].is_sealed()
    finally:
        member.resume()
    # Nobody is left who could open it: the state says so after a while, and shares open it again.
    nodes.wait(lambda: b"seal/state=sealed:3" in everything(nodes), 15)
    for node, share in zip(nodes.all, made.shares[1:], strict=False):
        told = node.unseal(share)
    assert not told.sealed


def test_a_process_stopped_for_long_wakes_up_without_keys(nodes: SealNodes) -> None:
    nodes.unsealed()
    nodes[0].signal(signal.SIGSTOP)
    time.sleep(10.5)
    nodes[0].signal(signal.SIGCONT)
    nodes.wait(lambda: len(nodes.lines("the keys are wiped")) == 1, 5)
    nodes.wait(lambda: nodes[0].is_sealed() is False)
    assert len(nodes.lines("the root key was given to a peer")) == 1


def put(nodes: SealNodes, key: bytes, value: bytes) -> None:
    async def write() -> None:
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        try:
            await etcd.transact(txn.txn([], [txn.put(key, value)]), idempotent=True)
        finally:
            await etcd.close()

    asyncio.run(write())


def test_readiness_says_what_is_missing(nodes: SealNodes) -> None:
    def why(node: SealNode) -> str:
        try:
            node.ask.GetReady(pb.GetReadyRequest(), timeout=2)
        except grpc.RpcError as refusal:
            return str(refusal.details())
        return ""

    assert "not initialized" in why(nodes[0])
    made = nodes.init()
    assert "sealed" in why(nodes[0])
    for node, share in zip(nodes.all, made.shares[:2], strict=False):
        node.unseal(share)
    assert why(nodes[0]) == "kv and auth of this node is away"
    for service in ("kv", "auth"):
        put(nodes, keyspace.node(service, "node-1"), b'{"unsealed": false}')
    assert why(nodes[0]) == "kv and auth of this node has no keys yet"
    put(nodes, keyspace.node("kv", "node-1"), b'{"unsealed": true}')
    assert why(nodes[0]) == "auth of this node has no keys yet"
    put(nodes, keyspace.node("auth", "node-1"), b"{}")
    assert why(nodes[0]) == ""
    assert nodes[0].health().ready
    assert "kv and auth" in why(nodes[1])
    # The clock is judged when a new cluster/time arrives.
    put(nodes, keyspace.CLUSTER_TIME, b"%020d" % (time.time_ns() // 10**6 - 5000))
    nodes.wait(lambda: "clock" in why(nodes[0]))
    put(nodes, keyspace.CLUSTER_TIME, b"%020d" % (time.time_ns() // 10**6))
    nodes.wait(lambda: why(nodes[0]) == "")


def test_health_names_who_does_what_and_who_is_alive(nodes: SealNodes) -> None:
    nodes.unsealed()
    put(nodes, keyspace.election("audit", "audit"), b"7 node-2")
    put(nodes, keyspace.election("audit", "audit") + b"/term", b"7")
    put(nodes, keyspace.election("lease", "reaper") + b"/term", b"3")
    health = nodes[0].health()
    assert (health.leader, health.term, health.leaders["audit"]) == ("node-2", 7, "node-2")
    assert "reaper" not in health.leaders
    nodes[2].kill()
    nodes.wait(lambda: not nodes[0].health().nodes[2].live)
    found = [(one.id, one.live, one.sealed) for one in nodes[0].health().nodes]
    assert found == [("node-1", True, False), ("node-2", True, False), ("node-3", False, True)]


async def _unwrap(nodes: SealNodes) -> str:
    """Why kv's question for keys is refused."""
    client = KeyClient(nodes.settings("node-1", "kv"))
    try:
        await client.wrap([Dek.fresh()])
    except StrongBoxError as refusal:
        return refusal.reason
    finally:
        await client.close()
    return ""


async def test_keys_are_wrapped_by_the_certificate_of_who_asks() -> None:
    with SealNodes() as nodes:
        clients = {name: KeyClient(nodes.settings("node-1", name)) for name in ("kv", "audit")}
        assert await _unwrap(nodes) == "SEALED"
        await asyncio.to_thread(nodes.unsealed)
        for client in clients.values():
            await client.start()
            await asyncio.wait_for(client.wait_unsealed(), 5)
        assert clients["kv"].record_keys == clients["audit"].record_keys is not None
        deks = [Dek.fresh() for _ in range(500)]
        wrapped = await clients["kv"].wrap(deks)
        assert await clients["kv"].unwrap(wrapped) == [dek.key for dek in deks]
        with pytest.raises(ValueError):
            await clients["audit"].unwrap(wrapped[:1])
        nodes[0].kill()  # its own node's replica: the next one answers
        assert await clients["kv"].unwrap(wrapped[:1]) == [deks[0].key]
        for client in clients.values():
            await client.close()
