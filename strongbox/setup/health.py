"""The probe of a container: gRPC health over mutual TLS, with the container's own certificate.

The kubelet's own gRPC probe speaks no TLS, and no listener of ours goes without, so the probe is a command.
Serving is what a *sealed* service says too: it has to stay reachable, to be unsealed or to answer SEALED.
"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2

from strongbox.rpc.channel import server_name
from strongbox.setup.settings import HealthSettings
from strongbox.tls import identity_of

_TIMEOUT = 3.0  # seconds; less than the probe's own


class NotServing(Exception):
    """The service answers, and says that it does not serve."""


def require_serving(settings: HealthSettings) -> None:
    """Raises NotServing, or grpc.RpcError when nobody answers."""
    port = settings.listen.rpartition(":")[2]
    now = identity_of(settings).current()
    credentials = grpc.ssl_channel_credentials(now.authority, now.key, now.certificate)
    options = (
        ("grpc.ssl_target_name_override", server_name(settings.service)),
        ("grpc.enable_http_proxy", 0),
    )
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise NotServing("not serving")
