"""Who may reach whom: the policies allow each call that the protos' rules allow, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from strongbox.config import SERVICES
from strongbox.rpc import method_rules
from tests.k8s.manifests import OVERLAYS, manifests, workloads
from tests.support.surface import all_rpcs

EVERYBODY = {*SERVICES, "gateway", "etcd", "etcd-users", "certificates"}
NAME = "app.kubernetes.io/name"


def policies(overlay: str) -> dict[str, dict[str, Any]]:
    return {
        one["metadata"]["name"].removeprefix("strongbox-"): one["spec"]
        for one in manifests(overlay)
        if one["kind"] == "NetworkPolicy"
    }


def allowed(overlay: str) -> set[tuple[str, str, int]]:
    """(from, to, port) that both ends allow, within the namespace; as Kubernetes would judge."""
    found = policies(overlay)
    out, into = set(), set()
    for name, spec in found.items():
        for rule in spec.get("egress", ()):
            for peer in rule.get("to", ()):
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    other = peer["podSelector"]["matchLabels"][NAME].removeprefix("strongbox-")
                    out |= {(name, other, port["port"]) for port in rule["ports"]}
        for rule in spec.get("ingress", ()):
            for peer in rule.get("from", ()):
                if "podSelector" in peer:
                    other = peer["podSelector"]["matchLabels"][NAME].removeprefix("strongbox-")
                    into |= {(other, name, port["port"]) for port in rule["ports"]}
    assert out == into, "both ends have to allow the same"
    return out


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_by_default_nobody_reaches_anybody(overlay: str) -> None:
    found = policies(overlay)
    default = found.pop("default")
    assert default == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in found.items():
        assert spec["podSelector"] == {"matchLabels": {NAME: f"strongbox-{name}"}}
        assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert found.keys() == EVERYBODY


def test_the_calls_that_are_allowed_are_those_of_the_rules() -> None:
    ports = {
        name: one["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"]
        for name, one in workloads("prod").items()
    }
    wanted = {(service, "etcd", 2379) for service in (*SERVICES, "etcd-users")} | {("etcd", "etcd", 2380)}
    for rpc in all_rpcs():
        service = rpc.service.split(".")[1]
        # The operator is people, with a tunnel of their own.
        peers = {*rpc.rule.peers} or method_rules.PUBLIC - {"operator"}
        wanted |= {(peer, service, ports[service]) for peer in peers}
    assert allowed("prod") == wanted


def test_nobody_but_the_gateway_can_be_reached_from_outside_and_few_reach_out() -> None:
    found = policies("prod")
    open_to_all = {
        name: [port["port"] for port in rule["ports"]]
        for name, spec in found.items()
        for rule in spec.get("ingress", ())
        if "from" not in rule
    }
    assert open_to_all == {"gateway": [8443]}
    outward = {
        name: [port["port"] for port in rule["ports"]]
        for name, spec in found.items()
        for rule in spec.get("egress", ())
        if "to" not in rule
    }
    assert outward == {"lease": [5432], "auth": [443, 6443], "certificates": [443, 6443]}
