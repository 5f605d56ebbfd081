"""The addresses of Services that are not headless: each connection goes to one backend, as by kube-proxy.

A connection that was made stays where it is, also when the pod is no backend any more. The pod sees the
address of the bridge as its client.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading

from tests.rehearsal.control.store import Object, Store
from tests.rehearsal.node.endpoints import Backend, Endpoints
from tests.rehearsal.node.network import Network

_CONNECT = 5.0  # seconds
_UNDER_WAY: set[asyncio.Task[None]] = set()


class Proxies:
    """Gives Services addresses and listens there."""

    def __init__(self, store: Store, endpoints: Endpoints, network: Network) -> None:
        self._store, self._endpoints, self._network = store, endpoints, network
        self._known: dict[str, str] = {}
        threading.Thread(target=lambda: asyncio.run(self._run()), name="proxies", daemon=True).start()

    async def _run(self) -> None:
        while True:
            for service in self._store.list("services"):
                uid = service["metadata"]["uid"]
                if service["spec"].get("clusterIP") != "None" and uid not in self._known:
                    self._known[uid] = await asyncio.to_thread(self._network.service_address)
                    await self._listen(service, self._known[uid])
                    self._tell(service, self._known[uid])
            await asyncio.sleep(0.2)

    def _tell(self, service: Object, address: str) -> None:
        metadata = service["metadata"]
        key = ("services", metadata["namespace"], metadata["name"])
        self._store.change(key, lambda value: value["spec"].update(clusterIP=address))

    async def _listen(self, service: Object, address: str) -> None:
        key = (service["metadata"]["namespace"], service["metadata"]["name"])
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str | int = target
            ) -> None:
                await forward(self._endpoints.view.backends.get(key, []), target, reader, writer)

            await asyncio.start_server(serve, address, port["port"])


async def forward(
    backends: list[Backend], target: str | int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """To one of them, or the connection is reset."""
    task = asyncio.current_task()
    assert task is not None
    _UNDER_WAY.add(task)  # or nobody holds it, and it may be collected in the middle
    task.add_done_callback(_UNDER_WAY.discard)
    try:
        chosen = random.choice(backends)
        port = target if isinstance(target, int) else chosen.ports[target]
        there = await asyncio.wait_for(asyncio.open_connection(chosen.address, port), _CONNECT)
    except (OSError, IndexError, TimeoutError):
        writer.transport.abort()
        return
    await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
    for one in (writer, there[1]):
        one.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
    except OSError:
        writer.transport.abort()
