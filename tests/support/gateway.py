"""One gateway of three nodes before fake services: real Envoy, real TLS, replicas that say what they got."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from strongbox.auth.v1 import auth_service_pb2 as auth_pb
from strongbox.auth.v1 import auth_service_pb2_grpc as auth_grpc
from strongbox.config import SERVICES
from strongbox.dev.certs import Certificates
from strongbox.dev.ports import free_ports
from strongbox.dev.processes.children import dying_with_parent
from strongbox.dev.processes.envoy import envoy_command
from strongbox.gateway.configuration import Endpoint, GatewaySettings, write_configuration
from strongbox.gateway.source_limits import Limits
from strongbox.kv.v1 import kv_service_pb2 as kv_pb
from strongbox.kv.v1 import kv_service_pb2_grpc as kv_grpc
from strongbox.seal.v1 import seal_service_pb2 as seal_pb
from strongbox.seal.v1 import seal_service_pb2_grpc as seal_grpc

NODES = ["node-1", "node-2", "node-3"]


@dataclass
class Seen:
    """One call as a replica got it."""

    node: str
    method: str
    request: Any
    metadata: dict[str, str]


@dataclass
class World:
    """What the fakes share: the calls they got, and paths on which they fail, once or always."""

    calls: list[Seen] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    late: Counter[tuple[str, str]] = field(default_factory=Counter)  # health checks to be answered too late
    checks: Counter[tuple[str, str]] = field(default_factory=Counter)  # health checks that were asked for

    def note(self, node: str, method: str, request: Any, context: grpc.ServicerContext) -> None:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.calls.append(Seen(node, method, request, metadata))

    def fail_on(self, path: str, context: grpc.ServicerContext) -> None:
        """Paths: `fail/retry` (once, says it is safe), `fail/sealed`, `fail/slow`; a token `junk` is none."""
        if ("authorization", "Bearer junk") in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid token is needed")
        if path == "fail/retry" and self.failures.setdefault(path, 1):
            self.failures[path] = 0
            context.set_trailing_metadata((("x-strongbox-retry", "1"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "try another")
        if path == "fail/sealed":
            context.abort_with_status(rpc_status.to_status(sealed()))
        if path == "fail/slow":
            time.sleep(3.0)


def sealed() -> status_pb2.Status:
    """As strongbox.rpc renders strongbox.errors.Sealed."""
    info, request = any_pb2.Any(), any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="SEALED", domain="strongbox", metadata={"k": "v"}))
    request.Pack(error_details_pb2.RequestInfo(request_id="r"))
    return status_pb2.Status(
        code=code_pb2.UNAVAILABLE, message="the cluster is sealed", details=[info, request]
    )


class FakeKV(kv_grpc.KVServiceServicer):
    """Answers with the node's name as the value."""

    def __init__(self, node: str, world: World) -> None:
        self.node, self.world = node, world

    def ReadSecret(self, request: kv_pb.ReadSecretRequest, context: Any) -> kv_pb.ReadSecretResponse:
        self.world.note(self.node, "ReadSecret", request, context)
        self.world.fail_on(request.path, context)
        return kv_pb.ReadSecretResponse(path=request.path, value=self.node, revision="9007199254740993")

    def WriteSecret(self, request: kv_pb.WriteSecretRequest, context: Any) -> kv_pb.WriteSecretResponse:
        self.world.note(self.node, "WriteSecret", request, context)
        return kv_pb.WriteSecretResponse(path=request.path)

    def ListSecrets(self, request: kv_pb.ListSecretsRequest, context: Any) -> kv_pb.ListSecretsResponse:
        self.world.note(self.node, "ListSecrets", request, context)
        return kv_pb.ListSecretsResponse()


class FakeAuth(auth_grpc.AuthServiceServicer):
    """Token creation, which must not be sent twice."""

    def __init__(self, node: str, world: World) -> None:
        self.node, self.world = node, world

    def CreateToken(self, request: auth_pb.CreateTokenRequest, context: Any) -> auth_pb.CreateTokenResponse:
        self.world.note(self.node, "CreateToken", request, context)
        self.world.fail_on(request.display_name, context)
        return auth_pb.CreateTokenResponse()

    def LoginUser(self, request: auth_pb.LoginUserRequest, context: Any) -> auth_pb.LoginUserResponse:
        self.world.note(self.node, "LoginUser", request, context)
        return auth_pb.LoginUserResponse()


class FakeHealth(health.HealthServicer):  # type: ignore[misc]
    """Serving; as many checks as `World.late` says are answered after the gateway's timeout for them."""

    def __init__(self, node: str, service: str, world: World) -> None:
        super().__init__()
        self.set("", health_pb2.HealthCheckResponse.SERVING)
        self._who, self._world = (node, service), world

    def Check(self, request: Any, context: Any) -> Any:
        self._world.checks[self._who] += 1
        if self._world.late[self._who]:
            self._world.late[self._who] -= 1
            time.sleep(1.2)
        return super().Check(request, context)


class FakeSeal(seal_grpc.SealServiceServicer):
    """Health names the node; unseal answers."""

    def __init__(self, node: str, world: World) -> None:
        self.node, self.world = node, world

    def GetHealth(self, request: seal_pb.GetHealthRequest, context: Any) -> seal_pb.GetHealthResponse:
        return seal_pb.GetHealthResponse(node_id=self.node)

    def Seal(self, request: seal_pb.SealRequest, context: Any) -> seal_pb.SealResponse:
        self.world.fail_on("", context)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "nothing is sealed here")

    def Unseal(self, request: seal_pb.UnsealRequest, context: Any) -> seal_pb.UnsealResponse:
        return seal_pb.UnsealResponse(sealed=True)


class Gateway:
    """node-1's Envoy, and the fakes of three nodes behind it."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder
        self.hosts: dict[str, str] = {}  # by node; 127.0.0.1 where none is named
        self.limits = limits or Limits()
        self.world = World()
        self.certificates = Certificates(folder / "certs")
        self.certificates.ensure(NODES)
        ports = iter(free_ports(2 + len(SERVICES) * len(NODES)))
        self.port, self.tls_port = next(ports), next(ports)
        self.ports = {(node, service): next(ports) for node in NODES for service in SERVICES}
        self._servers: dict[tuple[str, str], grpc.Server] = {}
        self._envoy: subprocess.Popen[bytes] | None = None

    def start_service(self, node: str, service: str, certificate_of: str | None = None) -> None:
        """Start a fake, with the certificate of another service when told."""
        server = grpc.server(futures.ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        # What a fake leaves out is UNIMPLEMENTED, as the generated base says.
        if service == "kv":
            kv_grpc.add_KVServiceServicer_to_server(FakeKV(node, self.world), server)  # type: ignore[abstract]
        elif service == "auth":
            fake = FakeAuth(node, self.world)  # type: ignore[abstract]
            auth_grpc.add_AuthServiceServicer_to_server(fake, server)
        elif service == "seal":
            seal_grpc.add_SealServiceServicer_to_server(FakeSeal(node, self.world), server)  # type: ignore[abstract]
        health_pb2_grpc.add_HealthServicer_to_server(FakeHealth(node, service, self.world), server)
        files = self.certificates.of(node, certificate_of or service)
        credentials = grpc.ssl_server_credentials(
            [(files.key.read_bytes(), files.certificate.read_bytes())],
            self.certificates.authority.read_bytes(),
            require_client_auth=True,
        )
        host = self.hosts.get(node, "127.0.0.1")
        server.add_secure_port(f"{host}:{self.ports[node, service]}", credentials)
        server.start()
        self._servers[node, service] = server

    def stop_service(self, node: str, service: str) -> None:
        """Its port refuses from now on; what is under way may end."""
        self._servers.pop((node, service)).stop(1.0).wait()

    def settings(self) -> GatewaySettings:
        """What Envoy's configuration is rendered with: fixed addresses, node-1's replicas first."""
        return GatewaySettings(
            node="node-1",
            ordinal=1,
            port=self.port,
            tls_port=self.tls_port,
            endpoints={
                service: [
                    Endpoint("127.0.0.1", self.ports[node, service], node == "node-1") for node in NODES
                ]
                for service in SERVICES
            },
            certificate=self.certificates.of("node-1", "gateway").certificate,
            key=self.certificates.of("node-1", "gateway").key,
            authority=self.certificates.authority,
            configuration=self.folder / "envoy.yaml",
            watched=self.certificates.folder,
            limits=self.limits,
        )

    def start(self) -> None:
        """Render the configuration, start Envoy and wait until it serves."""
        write_configuration(self.settings())
        self.start_envoy()

    def start_envoy(self) -> None:
        """Start Envoy with the configuration that is there, and wait until it serves."""
        with (self.folder / "envoy.log").open("wb") as log:
            self._envoy = subprocess.Popen(
                [*dying_with_parent(), *envoy_command(self.folder / "envoy.yaml")],
                stdout=log,
                stderr=log,
                env=dict(os.environ),
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                if self.rest("GET", "/v1/secrets/up").status == 200:
                    break
            except OSError:
                pass
            assert self._envoy.poll() is None, (self.folder / "envoy.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "envoy.log").read_text()
            time.sleep(0.1)
        self.world.calls.clear()

    def stop(self) -> None:
        """Stop Envoy and the fakes."""
        if self._envoy:
            self._envoy.kill()
            self._envoy.wait()
        for node, service in list(self._servers):
            self.stop_service(node, service)

    def rest(
        self, method: str, path: str, body: bytes | None = None, source: str = "127.0.0.1", **headers: str
    ) -> Answer:
        """One call, the path sent exactly as it is; `source`: the address it comes from."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=10, source_address=(source, 0)
        )
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if body is not None:
                connection.putheader("content-type", "application/json")
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """What comes back for these bytes until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A native client's channel."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            yield channel


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """Of the ErrorInfo in `details`."""
        return str(self.json["details"][0]["reason"])


@contextmanager
def running_gateway(folder: Path, limits: Limits | None = None) -> Iterator[Gateway]:
    """A gateway with all fakes up."""
    gateway = Gateway(folder, limits)
    try:
        for node in NODES:
            for service in ("kv", "auth", "seal"):
                gateway.start_service(node, service)
        gateway.start()
        yield gateway
    finally:
        gateway.stop()
