"""What the rendered configuration says, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from strongbox.config import SERVICES
from strongbox.gateway import routes
from strongbox.gateway.configuration import ROOT, Endpoint, GatewaySettings, envoy_configuration
from strongbox.gateway.routes import Method
from strongbox.gateway.source_limits import Limits
from strongbox.gateway.template import TemplateError, render


@pytest.fixture(scope="module")
def methods() -> dict[str, Method]:
    known = routes.load_descriptors((ROOT / "gateway" / "strongbox.binpb").read_bytes())
    return {method.full_name: method for method in routes.public_methods(known)}


@pytest.fixture(scope="module")
def configuration() -> str:
    endpoint = Endpoint("127.0.0.1", 1, own=True)
    files = (Path("gateway.pem"), Path("gateway.key"), Path("ca.pem"), Path("envoy.yaml"), Path("certs"))
    return envoy_configuration(
        GatewaySettings("node-1", 1, 8201, {service: [endpoint] for service in SERVICES}, *files)
    )


def test_there_is_no_admin_interface_and_no_access_log(configuration: str) -> None:
    assert not [line for line in configuration.splitlines() if line.startswith("admin")]
    assert "access_log" not in configuration


def test_a_replica_is_unhealthy_when_two_checks_in_a_row_are_late_and_the_own_seal_is_not_checked(
    configuration: str,
) -> None:
    clusters = yaml.safe_load(configuration)["static_resources"]["clusters"]
    late = {one["name"]: [check["unhealthy_threshold"] for check in one["health_checks"]] for one in clusters}
    assert late == {**{service: [2] for service in SERVICES}, "seal_local": []}


def test_no_service_for_peers_is_listed_or_routed(methods: dict[str, Method], configuration: str) -> None:
    listed = routes.public_services(list(methods.values()))
    assert "strongbox.kv.v1.KVService" in listed
    assert not [name for name in listed if "Peer" in name]
    assert "PeerService/" not in configuration


def test_the_rule_beside_the_rest_path_decides_timeout_cluster_and_retries(
    methods: dict[str, Method],
) -> None:
    read = methods["strongbox.kv.v1.KVService/ReadSecret"].values(Limits())
    assert (read["CLUSTER"], read["TIMEOUT"]) == ("kv", "2s")
    policy = read["RETRY_POLICY"]
    assert policy["retry_on"] == "connect-failure,refused-stream,reset,cancelled,retriable-headers"
    health = methods["strongbox.seal.v1.SealService/GetHealth"].values(Limits())
    assert health["CLUSTER"] == "seal_local"
    policy = health["RETRY_POLICY"]
    assert policy["retry_on"] == "connect-failure,refused-stream,reset,cancelled"
    assert _longest_pauses(policy) < float(health["TIMEOUT"].rstrip("s")), "a dead replica is a 503"
    init = methods["strongbox.seal.v1.SealService/Initialize"].values(Limits())
    assert (init["CLUSTER"], init["TIMEOUT"]) == ("seal", "5s")
    for name in ("strongbox.seal.v1.SealService/Initialize", "strongbox.auth.v1.AuthService/CreateToken"):
        policy = methods[name].values(Limits())["RETRY_POLICY"]
        assert policy["retry_on"] == "connect-failure,refused-stream", f"{name} must not run twice"
        assert "retriable_headers" not in policy


def _longest_pauses(policy: dict[str, Any]) -> float:
    """Seconds of all pauses together: Envoy waits at random up to base * (2^n - 1), capped."""
    pauses = policy["retry_back_off"]
    base, most = float(pauses["base_interval"].rstrip("s")), float(pauses["max_interval"].rstrip("s"))
    return sum(min(base * (2.0**number - 1), most) for number in range(1, int(policy["num_retries"]) + 1))


def test_a_template_is_strict() -> None:
    assert render(
        "a @X@\n#each L\n- @Y@\n#end L\n#if W\nw\n#end W", {"X": "1"}, {"L": [{"Y": "2"}]}, {"W": False}
    ) == ('a "1"\n- "2"\n')
    assert render("a @X@", {"X": 'C:\\temp "a" é𝄞'}, {}, {}) == 'a "C:\\\\temp \\"a\\" é𝄞"\n'
    for broken in ("@X@", "#each L\n#end L", "#if W\n"):
        with pytest.raises(TemplateError):
            render(broken, {}, {}, {})
