"""Peer unseal in every wrong circumstance, by somebody with a right certificate: refused, and alerted."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from services.seal.ordinal import own_ordinal
from services.seal.peer_unseal.responder import ALERT
from strongbox.crypto.key_transport import Receiver
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.seal.v1 import seal_peer_service_pb2_grpc as rpc
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.seal.nodes import SealNode, SealNodes
from tests.services.seal.test_processes import everything, put, reason, seal


def ask(nodes: SealNodes, giver: SealNode, thief: str, node_id: str, service: str = "seal") -> str:
    """Why `giver` refuses the root key for `node_id` to the certificate of `thief`; "" when it gives."""
    files = nodes.certificates.of(thief, service)
    credentials = grpc.ssl_channel_credentials(
        nodes.certificates.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    options = (("grpc.ssl_target_name_override", "seal.strongbox.internal"),)
    with grpc.secure_channel(giver.address, credentials, options) as channel:
        request = pb.RequestRootKeyRequest(node_id=node_id, public_key=Receiver().public)
        try:
            rpc.SealPeerServiceStub(channel).RequestRootKey(request, timeout=5)
        except grpc.RpcError as refusal:
            caught: pytest.ExceptionInfo[grpc.RpcError] = pytest.ExceptionInfo.from_exception(refusal)
            return reason(caught)
    return ""


def test_the_root_key_is_refused_in_every_wrong_circumstance_and_each_is_alerted() -> None:
    with SealNodes() as nodes:
        giver = nodes[0]
        assert ask(nodes, giver, "node-2", "node-2") == "SEALED"
        made = nodes.unsealed()
        nodes.wait(lambda: is_holder(nodes, "node-2"))  # noted just after: until then it is to be given
        refusals = 0

        def refused(why: str, thief: str, node_id: str) -> None:
            nonlocal refusals
            assert ask(nodes, giver, thief, node_id) == why
            refusals += 1
            nodes.wait(lambda: len(nodes.lines(ALERT)) == refusals, 3)

        # Its holder is alive; another's node; a node that never was; no name at all.
        refused("PERMISSION_DENIED", "node-2", "node-2")
        refused("PERMISSION_DENIED", "node-2", "node-3")
        refused("PERMISSION_DENIED", "node-2", "node-9")
        refused("INVALID_ARGUMENT", "node-2", "../x")
        # Somebody who can write to etcd as well brings a session and a record of his own along; the ordinal
        # is node-2's all the same.
        put(nodes, keyspace.node("seal", "node-9"), b'{"address": "127.0.0.1:1"}')
        ordinal = nodes_ordinal(nodes, "node-2")
        own = storage.SealReplica(node="node-9", ordinal=ordinal)
        put(nodes, keyspace.seal_replica("node-9"), own.SerializeToString())
        refused("PERMISSION_DENIED", "node-2", "node-9")
        # Another service's certificate does not get as far as that.
        assert ask(nodes, giver, "node-2", "node-2", "kv") == "PERMISSION_DENIED"
        assert b"PeerUnseal" not in everything(nodes)

        # The right circumstances, once; then not again for five seconds, by whoever has the certificate.
        nodes[1].kill()
        nodes[1].start()
        nodes.wait(lambda: nodes[1].is_sealed() is False)
        assert len(nodes.lines("the root key was given to a peer")) == 1
        known = len(nodes.lines(ALERT))
        nodes[1].kill()
        nodes.wait(lambda: not giver.health().nodes[1].live)
        assert ask(nodes, giver, "node-2", "node-2") == "PERMISSION_DENIED"  # no session at all
        nodes.wait(lambda: len(nodes.lines(ALERT)) == known + 1, 3)
        # Refusals are in the audit chain, counted so that they cannot fill it.
        nodes.wait(lambda: b"CountUnauthenticated" in everything(nodes), 8)

        nodes[1].start()
        nodes.wait(lambda: nodes[1].is_sealed() is False)
        seal(giver, made)
        assert ask(nodes, giver, "node-2", "node-2") == "SEALED"


@pytest.mark.heavy
def test_a_replica_nobody_unsealed_gets_nothing_by_its_own_word() -> None:
    """A certificate of a new ordinal, issued while the cluster is unsealed: people give it shares."""
    with SealNodes() as nodes:
        nodes[2].kill()
        made = nodes.init()
        # As if node-3 had never been: it is first seen while the cluster is unsealed.
        nodes.wait(lambda: sum(one.live for one in nodes[0].health().nodes) == 2)
        forget(nodes, keyspace.seal_replica("node-3"), keyspace.ordinal(nodes_ordinal(nodes, "node-3")))
        for node, share in zip(nodes.all, made.shares[:2], strict=False):
            node.unseal(share)
        nodes[2].start()
        nodes.wait(lambda: len(nodes.lines(ALERT)) >= 2, 20)
        assert nodes[2].is_sealed()
        assert not nodes.lines("the root key was given to a peer")
        for share in made.shares[1:]:
            nodes[2].unseal(share)
        nodes.wait(lambda: nodes[2].is_sealed() is False, 5)
        # From now on it is known.
        nodes[2].kill()
        nodes[2].start()
        nodes.wait(lambda: nodes[2].is_sealed() is False)
        assert len(nodes.lines("the root key was given to a peer")) == 1


@pytest.mark.heavy
def test_switched_off_nothing_is_given_and_who_asks_is_alerted() -> None:
    with SealNodes() as nodes:
        nodes.unsealed()
        nodes[0].kill()
        nodes[0].settings["PEER_UNSEAL"] = "false"
        nodes[0].start()
        nodes.wait(lambda: nodes[0].is_sealed() is True)
        nodes[1].kill()
        nodes[2].kill()
        nodes[1].settings["PEER_UNSEAL"] = nodes[2].settings["PEER_UNSEAL"] = "false"
        nodes[1].start()
        nodes[2].start()
        made_ready = [node.is_sealed() for node in nodes.all if node.is_sealed() is not None]
        assert False not in made_ready
        nodes.wait(lambda: all(node.is_sealed() for node in nodes.all))
        assert ask(nodes, nodes[1], "node-1", "node-1") == "PERMISSION_DENIED"
        nodes.wait(lambda: len(nodes.lines(ALERT)) >= 1, 3)
        assert not nodes.lines("the root key was given to a peer")


def nodes_ordinal(nodes: SealNodes, name: str) -> str:
    return own_ordinal(nodes.certificates.of(name, "seal").certificate)


def is_holder(nodes: SealNodes, node: str) -> bool:
    """Whether etcd says that this replica holds keys."""

    async def read() -> bool:
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        try:
            row = await etcd.get(keyspace.seal_replica(node))
        finally:
            await etcd.close()
        return row is not None and storage.SealReplica.FromString(row.value).holds

    return asyncio.run(read())


def forget(nodes: SealNodes, *keys: bytes) -> None:
    async def delete() -> None:
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        try:
            await etcd.transact(txn.txn([], [txn.delete(key) for key in keys]), idempotent=True)
        finally:
            await etcd.close()

    asyncio.run(delete())
