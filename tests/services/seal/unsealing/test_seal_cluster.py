"""Whom `seal` waits for: every process that could still answer with a secret."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.seal.custody.held_keys import PROOF_S
from services.seal.custody.seal_confirmations import Revisions, confirmations
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd
from tests.services.seal.nodes import SealNodes
from tests.services.seal.test_processes import put, seal

_KV = keyspace.node("kv", "node-1")


def _replica(node: str, *, holds: bool) -> KV:
    record = storage.SealReplica(node=node, holds=holds).SerializeToString()
    return KV(keyspace.seal_replica(node), record, 5, 5)


def _session(service: str, node: str, told: bytes) -> KV:
    return KV(keyspace.node(service, node), told, 5, 5)


def test_a_node_has_confirmed_when_all_its_processes_have() -> None:
    rows = [
        _replica("node-1", holds=False), _replica("node-2", holds=False), _replica("node-3", holds=True),
        _session("seal", "node-1", b'{"unsealed": false}'),
        _session("kv", "node-1", b'{"unsealed": false}'), _session("kv", "node-2", b'{"unsealed": true}'),
    ]  # fmt: skip
    assert confirmations(rows, ()) == (("node-1",), ("node-2", "node-3"))


@pytest.mark.parametrize("told", [b"", b"{}", b"[]", b"junk", b'{"unsealed": null}'])
def test_what_does_not_say_that_it_has_no_keys_has_not_confirmed(told: bytes) -> None:
    rows = [_replica("node-1", holds=False), _session("lease", "node-1", told)]
    assert confirmations(rows, ()) == ((), ("node-1",))


def test_a_row_that_nobody_can_read_keeps_no_sealing_from_being_answered() -> None:
    junk = KV(keyspace.seal_replica("node-2"), b"\xff", 5, 5)
    rows = [_replica("node-1", holds=False), junk, KV(keyspace.NODES + b"\xff", b"\xff", 5, 5)]
    assert confirmations(rows, ()) == (("node-1",), ("node-2",))


def test_a_process_that_was_there_a_moment_ago_and_is_gone_has_not_confirmed() -> None:
    rows = [_replica("node-1", holds=False), _session("kv", "node-1", b'{"unsealed": false}')]
    assert confirmations(rows, {"kv/node-1"}) == (("node-1",), ())
    assert confirmations(rows, {"kv/node-1", "auth/node-1", "kv/node-2"}) == ((), ("node-1", "node-2"))


def test_revisions_are_known_only_when_no_session_could_have_passed_between_them() -> None:
    revisions = Revisions()
    assert revisions.since(8.0, 10.0) is None
    for number in range(6):
        revisions.note(7.5 + number * 0.5, 100 + number)
    assert revisions.since(8.0, 10.0) == [101, 102, 103, 104, 105]
    assert revisions.since(8.0, 11.0) is None, "nothing was noted in the last second"
    assert revisions.since(7.0, 10.0) is None, "nothing was noted before the time asked for"


@pytest.fixture
def nodes() -> SealNodes:
    return SealNodes(1)


def _sealed_in(nodes: SealNodes, made: pb.InitializeResponse) -> tuple[pb.SealResponse, float]:
    began = time.monotonic()
    told = seal(nodes[0], made)
    return told, time.monotonic() - began


def _opened(nodes: SealNodes) -> pb.InitializeResponse:
    made = nodes.init()
    for share in made.shares[:2]:
        nodes[0].unseal(share)
    nodes.wait(lambda: nodes[0].is_sealed() is False)
    # Long enough for this replica to know who was there while a proof lasts.
    time.sleep(PROOF_S + 1)
    return made


def test_sealing_waits_for_the_services_and_no_longer(nodes: SealNodes) -> None:
    with nodes:
        made = _opened(nodes)
        put(nodes, _KV, b'{"unsealed": false}')
        told, took = _sealed_in(nodes, made)
        assert (list(told.confirmed), list(told.unconfirmed)) == (["node-1"], [])
        assert took < PROOF_S, "everybody had confirmed"


def test_sealing_names_a_service_that_says_nothing_when_it_can_answer_no_more(nodes: SealNodes) -> None:
    with nodes:
        made = _opened(nodes)
        put(nodes, _KV, b'{"unsealed": true}')
        told, took = _sealed_in(nodes, made)
        assert (list(told.confirmed), list(told.unconfirmed)) == ([], ["node-1"])
        assert took >= PROOF_S, "it could still have answered"


def test_sealing_waits_for_a_service_whose_session_ended_a_moment_ago(nodes: SealNodes) -> None:
    """It may have been stopped with a value in its hands, and wake up."""

    async def remove() -> None:
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        await etcd.transact(txn.txn([], [txn.delete(_KV)]))
        await etcd.close()

    with nodes:
        made = _opened(nodes)
        put(nodes, _KV, b'{"unsealed": true}')
        time.sleep(1.2)  # as long as a session lasts at least
        asyncio.run(remove())
        told, took = _sealed_in(nodes, made)
        assert list(told.unconfirmed) == ["node-1"]
        assert took >= PROOF_S
