"""A pod that comes back has another address behind its name: our gRPC clients reach it within seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from strongbox.client import transport
from strongbox.rpc import channel
from strongbox.store.etcd import endpoints
from tests.support.dns import NameServer, name_server

NAME = "strongbox-seal-0.strongbox-seal"
WITHIN = 5.0  # seconds; 30 without the option
CLIENTS = {
    "services": channel.OPTIONS,
    "etcd": endpoints.CHANNEL_OPTIONS,
    "library": transport.OPTIONS,
}


@pytest.fixture
def names() -> Iterator[NameServer]:
    with name_server(ttl=30) as server:
        yield server


def pod(host: str, port: int = 0) -> tuple[grpc.Server, int]:
    """A server that says that it serves, at this address."""
    server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    server.start()
    return server, bound


async def answers(stub: health_pb2_grpc.HealthStub) -> bool:
    try:
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
    except grpc.aio.AioRpcError:
        return False
    return True


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_pod_with_another_address_is_reached_within_seconds(client: str, names: NameServer) -> None:
    before, port = pod("127.0.0.2")
    names.hosts[NAME] = ["127.0.0.2"]
    # The name server is told in the address; in a pod it is the system's.
    where = f"dns://127.0.0.1:{names.port}/{NAME}:{port}"
    async with grpc.aio.insecure_channel(where, options=CLIENTS[client]) as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        assert await answers(stub)
        names.hosts[NAME] = ["127.0.0.3"]
        after, _ = pod("127.0.0.3", port)
        before.stop(0).wait()
        moved = time.monotonic()
        while not await answers(stub):
            assert time.monotonic() - moved < WITHIN
            await asyncio.sleep(0.1)
        after.stop(0).wait()
