"""etcd is full: no session can be had, and those there were have lapsed. Who holds a key holds it still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import grpc
from etcd3.etcdrpc import rpc_pb2 as pb

from services.seal.repository import SealState
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from tests.services.seal.nodes import SealNodes

_LONGER_THAN_IT_TAKES = 6.0  # seconds; nobody holding a key for 3 s makes a cluster sealed


def _alarm(nodes: SealNodes, action: int) -> None:
    """Raise etcd's alarm, or switch it off."""
    tls = nodes.tls.client()
    with grpc.secure_channel(nodes.etcd.endpoints[0], tls.credentials()) as channel:
        call = channel.unary_unary(
            "/etcdserverpb.Maintenance/Alarm",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.AlarmResponse.FromString,
        )
        call(pb.AlarmRequest(action=action, memberID=1, alarm=pb.NOSPACE), timeout=5)


def _end_sessions(nodes: SealNodes) -> None:
    async def end() -> None:
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        try:
            prefix = keyspace.NODES + b"seal/"
            found = await etcd.range(prefix, keyspace.prefix_end(prefix))
            assert len(found.rows) == len(nodes.all)
            for row in found.rows:
                await etcd.lease_revoke(row.lease)
            left = await etcd.range(prefix, keyspace.prefix_end(prefix))
            assert not left.rows
        finally:
            await etcd.close()

    asyncio.run(end())


def _state(nodes: SealNodes) -> SealState | None:
    async def read() -> SealState | None:
        etcd = Etcd(nodes.etcd.endpoints, nodes.tls.client())
        try:
            row = await etcd.get(keyspace.SEAL_STATE)
            return SealState.parse(row.value if row else None)
        finally:
            await etcd.close()

    return asyncio.run(read())


def _until(seconds: float) -> Iterator[None]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.2)


def test_a_cluster_whose_sessions_have_lapsed_is_not_called_sealed_while_somebody_holds_a_key() -> None:
    with SealNodes() as nodes:
        nodes.unsealed()
        nodes.wait(lambda: all(not one.sealed for one in nodes[0].health().nodes))
        before = _state(nodes)
        _alarm(nodes, pb.AlarmRequest.ACTIVATE)
        nodes[0].kill()
        _end_sessions(nodes)
        nodes[0].start()  # it holds no key, and sees nobody who does
        nodes.wait(lambda: nodes[0].is_sealed() is True)
        for _ in _until(_LONGER_THAN_IT_TAKES):
            assert not any(node.is_sealed() for node in nodes.all[1:])
        assert _state(nodes) == before
        _alarm(nodes, pb.AlarmRequest.DEACTIVATE)
        nodes.wait(lambda: nodes[0].is_sealed() is False)  # a peer gives it the root key
        assert _state(nodes) == before
