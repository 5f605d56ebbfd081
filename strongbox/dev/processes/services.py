"""The five services and the gateway of a node: how they are started, when they are ready."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from strongbox.config import SERVICES
from strongbox.dev.layout import Layout
from strongbox.dev.processes.children import Spec, dying_with_parent
from strongbox.dev.processes.envoy import envoy_command
from strongbox.dev.processes.etcd import quota_mib
from strongbox.gateway.configuration import ROOT, Endpoint, GatewaySettings, write_configuration
from strongbox.gateway.source_limits import Limits

UPKEEPER = "kv"  # whose duty compacts and defragments etcd
PROCESSES = ("etcd", *SERVICES, "envoy")
# Settings that whoever starts the cluster may choose for its services.
_PASSED = tuple(f"STRONGBOX_{name}" for name in (
    "REVOKE_BACKOFF_S", "REVOKE_BACKOFF_CAP_S", "RECONCILE_EVERY_S",
))  # fmt: skip


def service(layout: Layout, node: str, name: str) -> Spec:
    """How one service of a node is started; it says on its standard output when it listens."""
    log = layout.log(node, name)
    return Spec(
        node=node,
        name=name,
        address=layout.address(node, name),
        command=[*layout.host(node).enter, *dying_with_parent(), sys.executable, "-m", f"services.{name}"],
        environment=_environment(layout, node, name),
        log=log,
        is_ready=lambda: _said_ready(log.with_suffix(".out")),
        cwd=ROOT,
    )


def _environment(layout: Layout, node: str, name: str) -> dict[str, str]:
    files = layout.certificates.of(node, name)
    data = layout.folder / node / name
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {
        "STRONGBOX_NODE_ID": node,
        "STRONGBOX_LISTEN": layout.address(node, name),
        "STRONGBOX_ADVERTISE": layout.address(node, name),
        "STRONGBOX_ETCD_ENDPOINTS": _etcd_members(layout, node),
        "STRONGBOX_SEAL_ADDRESSES": _addresses(layout, node, "seal"),
        "STRONGBOX_TLS_CERT": str(files.certificate),
        "STRONGBOX_TLS_KEY": str(files.key),
        "STRONGBOX_TLS_CA": str(layout.certificates.authority),
        "STRONGBOX_DATA_DIR": str(data),
        "STRONGBOX_PROFILE": "local",
        "STRONGBOX_ETCD_QUOTA_MIB": str(quota_mib(layout, node)),
        "STRONGBOX_LOG_LEVEL": os.environ.get("STRONGBOX_LOG_LEVEL", "info"),
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
        **(_upkeep(layout) if name == UPKEEPER else {}),
    }


def _etcd_members(layout: Layout, node: str) -> str:
    return ",".join(layout.host(node).etcd_via) or _addresses(layout, node, "etcd")


def _upkeep(layout: Layout) -> dict[str, str]:
    files = layout.certificates.upkeep
    return {"STRONGBOX_UPKEEP_CERT": str(files.certificate), "STRONGBOX_UPKEEP_KEY": str(files.key)}


def _addresses(layout: Layout, node: str, name: str) -> str:
    return ",".join(layout.address(other, name) for other in layout.own_first(node))


def _said_ready(output: Path) -> bool:
    try:
        said = output.read_text(encoding="utf-8", errors="replace").splitlines()
        return bool(said) and json.loads(said[0]).get("ready") is True
    except (OSError, ValueError, AttributeError):
        return False  # nothing yet, or half a line


def gateway(layout: Layout, node: str) -> Spec:
    """How a node's Envoy is started; renders its configuration into DIR/<node>/envoy.yaml."""
    files = layout.certificates.of(node, "gateway")
    configuration = layout.folder / node / "envoy.yaml"
    settings = GatewaySettings(
        node=node,
        ordinal=layout.ordinal(node),
        port=layout.gateway_port(node),
        endpoints={name: _replicas(layout, node, name) for name in SERVICES},
        certificate=files.certificate,
        key=files.key,
        authority=layout.certificates.authority,
        configuration=configuration,
        watched=layout.certificates.folder,
        tls_port=layout.port(node, "gateway-tls") if layout.tls else None,
        host=layout.host(node).door,
        limits=Limits.load(),
    )
    write_configuration(settings)
    return Spec(
        node=node,
        name="envoy",
        address=layout.address(node, "envoy"),
        command=[*layout.host(node).enter, *dying_with_parent(), *envoy_command(configuration)],
        log=layout.log(node, "envoy"),
        is_ready=lambda: _accepts(settings.host, settings.port),
    )


def _replicas(layout: Layout, node: str, name: str) -> list[Endpoint]:
    return [
        Endpoint(layout.host(each).address, layout.port(each, name), each == node) for each in layout.node_ids
    ]


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True
