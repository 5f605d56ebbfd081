"""Bodies that are sent and never ended: the gateway stays below its limit of memory and goes on answering.

Heavy: 1.5 GB of them, more than the gateway of the manifests has, at a gigabit a second. Envoy looks at its
memory ten times a second and then resets what holds much, 50 streams at a time: over the loopback interface,
at a gigabyte a second, it would be too late.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from tests.support.clients import Patience
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.heavy, pytest.mark.cluster, pytest.mark.timeout(300)]
CONNECTIONS, STREAMS, BODY = 15, 100, (1 << 20) - 4096
SPEED = 1e9  # bits a second
LIMIT_MIB = 1024  # k8s/base/gateway.yaml


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.start(1) as running:
        yield running


def resident_mib(pid: int) -> int:
    """Of a process, at its most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) >> 10


async def hold(channel: grpc.aio.Channel, body: bytes) -> None:
    """Send a body and do not end it; a refusal ends it."""
    call = channel.stream_unary("/strongbox.kv.v1.KVService/WriteSecret")()
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(body)
        await call


async def attack(target: str) -> None:
    channels = [
        grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CONNECTIONS)
    ]
    body = bytes(BODY)
    held = list[asyncio.Task[None]]()
    for _ in range(STREAMS):
        for channel in channels:
            held.append(asyncio.create_task(hold(channel, body)))
            await asyncio.sleep(BODY * 8 / SPEED)
    await asyncio.sleep(5)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    for channel in channels:
        await channel.close()


def test_bodies_without_an_end_do_not_use_up_the_gateways_memory(cluster: Cluster) -> None:
    gateway = cluster.process("node-1", "envoy")
    asyncio.run(attack(cluster.gateways[0].removeprefix("http://")))
    most = resident_mib(gateway.pid)
    print(f"\nthe gateway took {most} MiB at its most")
    assert 300 < most < LIMIT_MIB  # it did hold them, as long as there was room
    with cluster.rest(cluster.root_token, 0, Patience()) as rest:
        rest.write("after/it", "x")
        assert rest.read("after/it")["value"] == "x"
