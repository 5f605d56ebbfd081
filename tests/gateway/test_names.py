"""A pod that comes back has another address behind its name: the gateway reaches it within a second or so."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from strongbox.config import SERVICES
from strongbox.gateway.configuration import Endpoint, write_configuration
from tests.support.dns import NameServer, name_server
from tests.support.gateway import Gateway

RESOLVER = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
TTL = 30  # seconds: what kubeadm's CoreDNS gives


@pytest.fixture
def names() -> Iterator[NameServer]:
    with name_server(TTL) as server:
        server.hosts |= {f"strongbox-{service}": ["127.0.0.2"] for service in SERVICES}
        yield server


def ask(configuration: Path, names: NameServer) -> None:
    """Let Envoy ask this name server instead of the pod's; all else stays as it was rendered."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rendered: Any = yaml.load(configuration.read_text("utf-8"), Loader=loader)
    where = {"socket_address": {"address": "127.0.0.1", "port_value": names.port, "protocol": "UDP"}}
    for cluster in rendered["static_resources"]["clusters"]:
        cluster["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {"@type": f"type.googleapis.com/{RESOLVER}", "resolvers": [where]},
        }
    configuration.write_text(yaml.safe_dump(rendered), "utf-8")


@pytest.fixture
def gateway(tmp_path: Path, names: NameServer) -> Iterator[Gateway]:
    """As in Kubernetes: one name for each service, which has one pod, at 127.0.0.2."""
    gateway = Gateway(tmp_path)
    gateway.hosts |= {"node-1": "127.0.0.2", "node-2": "127.0.0.3"}
    for service in SERVICES:
        gateway.ports["node-2", service] = gateway.ports["node-1", service]
    endpoints = {
        service: [Endpoint(f"strongbox-{service}", gateway.ports["node-1", service], own=False)]
        for service in SERVICES
    }
    settings = dataclasses.replace(
        gateway.settings(), ordinal=None, endpoints=endpoints, discovery="STRICT_DNS"
    )
    try:
        for service in ("kv", "auth", "seal"):
            gateway.start_service("node-1", service)
        write_configuration(settings)
        ask(settings.configuration, names)
        gateway.start_envoy()
        yield gateway
    finally:
        gateway.stop()


def reached_after(gateway: Gateway, names: NameServer) -> float:
    """Seconds from when the name says where the new pod is until it answers; 60 at most."""
    began = time.monotonic()
    names.hosts["strongbox-kv"] = ["127.0.0.3"]
    while time.monotonic() - began < 60:
        answer = gateway.rest("GET", "/v1/secrets/a")
        if answer.status == 200 and answer.json["value"] == "node-2":
            break
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_pod_with_another_address_is_reached_within_seconds_whatever_the_ttl(
    gateway: Gateway, names: NameServer
) -> None:
    assert gateway.rest("GET", "/v1/secrets/a").json["value"] == "node-1"
    time.sleep(2.5)  # it has asked again meanwhile, and could have remembered the answer
    gateway.start_service("node-2", "kv")
    gateway.stop_service("node-1", "kv")
    assert reached_after(gateway, names) < 3.0


def test_a_name_that_does_not_exist_for_a_while_is_found_when_it_is_there(
    gateway: Gateway, names: NameServer
) -> None:
    """A service of one pod, in between: CoreDNS has no such name then."""
    gateway.stop_service("node-1", "kv")
    del names.hosts["strongbox-kv"]
    time.sleep(2.5)
    assert gateway.rest("GET", "/v1/secrets/a").status == 503
    gateway.start_service("node-2", "kv")
    assert reached_after(gateway, names) < 3.0
