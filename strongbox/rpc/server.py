"""A gRPC server of ours: mutual TLS, one border for every call, health for the gateway, reflection inside.

In this order: make it, `bind`, `serve` each servicer, `start`. A service with an RPC that has no rule is
refused. A port that is taken is an error: gRPC would otherwise share it and take part of the connections.
Certificates are looked up at every handshake, so renewed ones serve the next connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from strongbox.rpc import method_rules
from strongbox.rpc.interceptors.call_log import Reporter
from strongbox.rpc.interceptors.server_interceptor import Border
from strongbox.rpc.method_rules import Access
from strongbox.rpc.request_context import Inbound
from strongbox.rpc.revealing import RequireUnsealed, refuse_all
from strongbox.tls import Material, TlsFiles, identity_of

MAX_MESSAGE = 4 << 20  # bytes; the gateway lets 1 MiB of REST body in
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # Our channels ping every 2 s (channel.OPTIONS), with and without calls.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client whose packets vanish does not keep its streams for ever.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)
LIVE = "live"  # what liveness probes ask for: whether the process answers at all
READY = "ready"  # what readiness probes ask for: whether the next replica may be taken away
HealthServicer = cast(Any, health).aio.HealthServicer  # public, but absent from the stubs
_STATUS = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.authority
    )


class Health:
    """What the gateway's health checks are told, for the process and each of its services."""

    def __init__(self) -> None:
        self.servicer = HealthServicer()
        self._names = [""]
        self._probes: grpc.aio.Server | None = None
        self.serving = False
        self.ready = False

    def add(self, full_name: str) -> None:
        """Answer for this service too."""
        self._names.append(full_name)

    async def set_serving(self, serving: bool) -> None:
        """Answer so from now on. A sealed service is serving: its answers say that it is sealed."""
        self.serving = serving
        for name in self._names:
            await self.servicer.set(name, _STATUS[serving])
        await self.set_ready(self.ready)

    async def set_ready(self, ready: bool) -> None:
        """Answer so for `READY` from now on, while the process serves; the gateway does not ask for it."""
        self.ready = ready
        await self.servicer.set(READY, _STATUS[self.serving and ready])

    async def start_probes(self, listen: str) -> None:
        """Answer the kubelet's probes, without TLS: the kubelet has no certificate of ours.

        Nothing but the standard health service is there. "live" is answered with SERVING from now on.
        Raises RuntimeError when the port is taken.
        """
        await self.servicer.set(LIVE, _STATUS[True])
        self._probes = grpc.aio.server(options=(("grpc.so_reuseport", 0),), maximum_concurrent_rpcs=16)
        health_pb2_grpc.add_HealthServicer_to_server(self.servicer, self._probes)
        self._probes.add_insecure_port(listen)
        await self._probes.start()

    async def stop_probes(self) -> None:
        """Answer no more."""
        if self._probes is not None:
            await self._probes.stop(0)


class Server:
    """One process's server."""

    def __init__(
        self,
        settings: TlsFiles,
        reporter: Reporter,
        is_sealed: Callable[[], bool] = lambda: False,
        spend: Callable[[Inbound], Awaitable[Inbound]] | None = None,
        require_unsealed_since: RequireUnsealed = refuse_all,
    ) -> None:
        self.health = Health()
        self._settings = settings
        self._accesses: dict[str, Access] = method_rules.table(())
        self._services: list[str] = []
        border = Border(self._accesses, reporter, is_sealed, spend, require_unsealed_since)
        self._server = grpc.aio.server(interceptors=[border], options=OPTIONS)

    def serve(
        self, add_to_server: Callable[[Any, grpc.aio.Server], None], servicer: Any, full_name: str
    ) -> None:
        """Have `servicer` answer for `full_name`. Raises `method_rules.NoRule`."""
        self._accesses.update(method_rules.table((full_name,)))
        add_to_server(servicer, self._server)
        self.health.add(full_name)
        self._services.append(full_name)

    def bind(self, listen: str) -> int:
        """Take the port of `host:port` (0: a free one) and return it. Raises OSError, RuntimeError."""
        identity = identity_of(self._settings)
        known = identity.current()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Called at each handshake, in a thread of gRPC's; None: as before. Never raises."""
            nonlocal known
            newest = identity.current()
            if newest is known:
                return None
            known = newest
            return _configuration(newest)

        credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(known),
            fetch,  # type: ignore[arg-type]  # may return None; the stubs do not know
            require_client_authentication=True,
        )
        return self._server.add_secure_port(listen, credentials)

    async def start(self) -> None:
        """Begin to answer, health with "not serving"."""
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._server)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        await self.health.set_serving(False)
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no more calls; what is in flight has `grace` seconds."""
        await self._server.stop(grace)
