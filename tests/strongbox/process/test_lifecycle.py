"""Real service processes against a real etcd, over mutual TLS."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.auth.v1 import auth_service_pb2_grpc as rpc
from strongbox.errors import NotInitialized, StrongBoxError
from strongbox.rpc.channel import open_channel
from strongbox.rpc.error_mapping import to_error
from strongbox.rpc.server import READY
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd
from tests.support.certs import NODE, Identities
from tests.support.etcd import EtcdCluster, dying_with_parent, free_ports
from tests.support.seals import FakeSeal

ROOT = Path(__file__).resolve().parents[3]
SERVING, NOT_SERVING = 1, 2


class Process:
    """A running service process, its address, and all it wrote to stderr."""

    def __init__(self, popen: subprocess.Popen[str], log: Path) -> None:
        self.popen, self._log = popen, log
        assert popen.stdout is not None
        self.first_line = popen.stdout.readline()
        self.address = json.loads(self.first_line)["address"] if self.first_line else ""

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(timeout=15)


class Place:
    """Certificates, and processes started with them."""

    def __init__(self, identities: Identities, folder: Path) -> None:
        self.identities, self.folder = identities, folder

    @contextmanager
    def process(self, endpoints: list[str], *command: str, **more: str) -> Iterator[Process]:
        files = self.identities.of("auth")
        environment = {
            **os.environ,
            "STRONGBOX_NODE_ID": NODE,
            "STRONGBOX_ETCD_ENDPOINTS": ",".join(endpoints),
            "STRONGBOX_TLS_CERT": str(files.tls_cert),
            "STRONGBOX_TLS_KEY": str(files.tls_key),
            "STRONGBOX_TLS_CA": str(files.tls_ca),
            "STRONGBOX_SEAL_ADDRESSES": "127.0.0.1:1",
            "STRONGBOX_DATA_DIR": str(self.folder),
            **more,
        }
        log = self.folder / "log"
        arguments = [*dying_with_parent(), sys.executable, *(command or ("-m", "services.auth"))]
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                arguments, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True
            ) as popen,
        ):
            try:
                yield Process(popen, log)
            finally:
                popen.kill()

    def channel(self, process: Process, who: str = "gateway") -> grpc.aio.Channel:
        return open_channel(process.address, "auth", self.identities.of(who))

    async def health(self, process: Process, service: str = "") -> int:
        async with self.channel(process) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            # On a busy machine a handshake can take longer than a channel gives it at first (250 ms).
            status: int = (await stub.Check(request, timeout=5, wait_for_ready=True)).status
            return status

    async def until_health(self, process: Process, status: int) -> None:
        async with asyncio.timeout(15):
            while await self.health(process) != status:
                await asyncio.sleep(0.05)

    async def ask(self, process: Process) -> StrongBoxError:
        """What LookupSelf is refused with."""
        async with self.channel(process) as channel:
            stub: Any = rpc.AuthServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await stub.LookupSelf(pb.LookupSelfRequest(), timeout=5)
            return to_error(failure.value)


@pytest.fixture
def place(identities: Identities, tmp_path: Path) -> Place:
    return Place(identities, tmp_path)


@pytest.fixture(scope="module")
def secure_etcd(identities: Identities) -> Iterator[EtcdCluster]:
    """One member that knows only our certificates."""
    with EtcdCluster(1, tls=identities.etcd()) as cluster:
        yield cluster


async def test_a_process_serves_shows_itself_in_etcd_and_leaves_no_trace(
    place: Place, secure_etcd: EtcdCluster
) -> None:
    etcd = Etcd(secure_etcd.endpoints, secure_etcd.tls)
    key = keyspace.node("auth", NODE)
    with place.process(secure_etcd.endpoints) as process:
        assert json.loads(process.first_line) == {"ready": True, "address": process.address}
        await place.until_health(process, SERVING)
        assert await place.health(process, "strongbox.auth.v1.AuthService") == SERVING
        async with asyncio.timeout(5):
            while not (told := await _told(etcd, key)).get("healthy"):
                await asyncio.sleep(0.05)
        assert told["node"] == NODE
        assert told["service"] == "auth"
        assert told["address"] == process.address
        assert abs(told["clock_ms"] - time.time() * 1000) < 3000
        assert isinstance(await place.ask(process), NotInitialized)
        assert process.end() == 0
        assert process.popen.stdout is not None
        assert process.popen.stdout.read() == "", "one line on stdout, no more"
    assert await etcd.get(key) is None, "the session is revoked, not left to run out"
    await etcd.close()


async def test_without_etcd_a_process_listens_and_is_not_serving_until_it_comes(
    place: Place, identities: Identities
) -> None:
    with EtcdCluster(1, tls=identities.etcd()) as cluster:
        cluster.members[0].kill()
        with place.process(cluster.endpoints) as process:
            await asyncio.sleep(0.5)
            assert await place.health(process) == NOT_SERVING
            refusal = await place.ask(process)
            assert refusal.reason == "NO_QUORUM"
            cluster.restart(0)
            await place.until_health(process, SERVING)
            assert process.end(signal.SIGINT) == 0


async def test_a_new_process_is_ready_when_it_has_heard_from_seal_and_stays_so(
    place: Place, secure_etcd: EtcdCluster, identities: Identities
) -> None:
    """With a wrong address it would answer SEALED, and an upgrade take those away that work."""
    seal = FakeSeal(identities)  # type: ignore[abstract]  # StreamKeys is what is asked
    seal.error = "SEALED"
    (port,) = free_ports(1)
    with place.process(secure_etcd.endpoints, STRONGBOX_SEAL_ADDRESSES=f"127.0.0.1:{port}") as process:
        await place.until_health(process, SERVING)
        for _ in range(20):
            assert await place.health(process, READY) == NOT_SERVING
            await asyncio.sleep(0.05)
        await seal.start(port)
        async with asyncio.timeout(10):
            while await place.health(process, READY) != SERVING:
                await asyncio.sleep(0.05)
        await seal.stop()
        for _ in range(20):
            assert await place.health(process, READY) == SERVING
            await asyncio.sleep(0.2)


async def test_a_call_under_way_ends_before_the_process_does(place: Place, identities: Identities) -> None:
    with EtcdCluster(1, tls=identities.etcd()) as cluster, place.process(cluster.endpoints) as process:
        await place.until_health(process, SERVING)
        cluster.members[0].pause()
        under_way = asyncio.create_task(place.ask(process))
        await asyncio.sleep(0.7)
        process.popen.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        cluster.members[0].resume()
        assert isinstance(await under_way, NotInitialized)
        assert process.popen.wait(timeout=10) == 0


def test_stopping_never_takes_long_even_without_etcd(place: Place, identities: Identities) -> None:
    with EtcdCluster(1, tls=identities.etcd()) as cluster, place.process(cluster.endpoints) as process:
        asyncio.run(place.until_health(process, SERVING))
        cluster.members[0].pause()
        started = time.monotonic()
        assert process.end() == 0
        assert time.monotonic() - started < 6
        cluster.members[0].resume()


@pytest.mark.processes
def test_settings_that_make_no_sense_end_it_at_once(place: Place) -> None:
    with place.process(["127.0.0.1:1"], STRONGBOX_PROFILE="imaginary") as process:
        assert process.popen.wait(timeout=10) == 2
        assert "STRONGBOX_PROFILE" in process.log


def test_a_port_that_is_taken_ends_it_at_once(place: Place, secure_etcd: EtcdCluster) -> None:
    with place.process(["127.0.0.1:1"], STRONGBOX_LISTEN=secure_etcd.endpoints[0]) as process:
        assert process.popen.wait(timeout=10) == 1
        assert "cannot start" in process.log


async def test_metrics_count_calls_where_they_are_asked_for(place: Place, secure_etcd: EtcdCluster) -> None:
    (port,) = free_ports(1)
    with place.process(secure_etcd.endpoints, STRONGBOX_METRICS_LISTEN=f"127.0.0.1:{port}") as process:
        await place.until_health(process, SERVING)
        await place.ask(process)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        wanted = 'method="/strongbox.auth.v1.AuthService/LookupSelf",outcome="NOT_INITIALIZED",service="auth"'
        assert f"strongbox_requests_total{{{wanted}}} 1.0" in text
        assert "\nstrongbox_certificate_end_timestamp_seconds 1." in text
        assert process.end() == 0


def test_a_background_failure_stops_the_process(place: Place, secure_etcd: EtcdCluster) -> None:
    program = """
import asyncio
from strongbox.process import run

async def fails():
    await asyncio.sleep(0.3)
    raise RuntimeError("hunter2")

async def assemble(runtime):
    runtime.spawn(fails(), "something")

run("auth", assemble)
"""
    with place.process(secure_etcd.endpoints, "-c", program) as process:
        assert process.popen.wait(timeout=10) == 1
        assert "RuntimeError" in process.log
        assert "hunter2" not in process.log


def test_a_full_outbox_is_followed_until_there_is_room(place: Place, secure_etcd: EtcdCluster) -> None:
    program = """
import asyncio
from strongbox.process import run

async def until_room(runtime):
    while runtime.journal.bound.is_full:
        await asyncio.sleep(0.05)
    runtime.stop()

async def assemble(runtime):
    runtime.journal.bound.published(0, 10**9)
    runtime.spawn(until_room(runtime), "waiting")

run("auth", assemble)
"""
    with place.process(secure_etcd.endpoints, "-c", program) as process:
        assert process.popen.wait(timeout=15) == 0


async def test_a_restart_keeps_the_process_and_its_port(place: Place, secure_etcd: EtcdCluster) -> None:
    program = """
import os, signal, asyncio
from strongbox.process import run

async def assemble(runtime):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, runtime.restart)

run("auth", assemble)
"""
    with place.process(secure_etcd.endpoints, "-c", program) as process:
        await place.until_health(process, SERVING)
        process.popen.send_signal(signal.SIGUSR1)
        assert process.popen.stdout is not None
        second = await asyncio.to_thread(process.popen.stdout.readline)
        assert json.loads(second)["address"] == process.address
        await place.until_health(process, SERVING)
        assert process.end() == 0


def test_the_process_cannot_be_dumped_or_traced(place: Place, secure_etcd: EtcdCluster) -> None:
    program = """
import resource
from strongbox.crypto.memory_protection import is_dumpable
from strongbox.process import run

async def assemble(runtime):
    print(is_dumpable(), resource.getrlimit(resource.RLIMIT_CORE), flush=True)

run("auth", assemble)
"""
    with _raw(place, secure_etcd.endpoints, program) as popen:
        assert popen.stdout is not None
        assert popen.stdout.readline() == "False (0, 0)\n"


@contextmanager
def _raw(place: Place, endpoints: list[str], program: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose first line is its own."""
    wrapped = f"import json\nprint(json.dumps({{'address': ''}}), flush=True)\n{program}"
    with place.process(endpoints, "-c", wrapped) as process:
        yield process.popen


async def _told(etcd: Etcd, key: bytes) -> dict[str, Any]:
    row = await etcd.get(key)
    return dict(json.loads(row.value)) if row is not None else {}
