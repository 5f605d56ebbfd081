"""The same template in Kubernetes: names with many addresses, no own node, certificates where secrets are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from strongbox.config import SERVICES
from strongbox.dev.certs import Certificates
from strongbox.dev.processes.envoy import envoy_binary
from strongbox.setup import __main__ as setup
from tests.k8s.manifests import environment, workloads


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the init container of the manifests makes of its environment (files of this machine)."""
    room = tmp_path_factory.mktemp("gateway")
    certificates = Certificates(room / "certs")
    certificates.ensure(["node-1"])
    files = certificates.of("node-1", "gateway")
    (init,) = workloads("prod")["gateway"]["spec"]["template"]["spec"]["initContainers"]
    told = {name: value for name, value in environment("prod", init).items() if isinstance(value, str)}
    told |= {
        "STRONGBOX_GATEWAY_CONFIG": str(room / "run" / "envoy.yaml"),
        "STRONGBOX_TLS_CA": str(certificates.authority),
        "STRONGBOX_TLS_CERT": str(files.certificate),
        "STRONGBOX_TLS_KEY": str(files.key),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        assert setup.main(["gateway"]) == 0
    return room / "run"


@pytest.fixture(scope="module")
def configuration(folder: Path) -> Any:
    text = (folder / "envoy.yaml").read_text("utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@pytest.mark.processes
def test_envoy_takes_it(folder: Path) -> None:
    command = [str(envoy_binary()), "--mode", "validate", "-c", str(folder / "envoy.yaml"), "-l", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_service_is_a_name_that_is_resolved_again_and_again(configuration: Any) -> None:
    clusters = {one["name"]: one for one in configuration["static_resources"]["clusters"]}
    assert clusters.keys() == {*SERVICES, "seal_local"}
    for name, one in clusters.items():
        service = name.removesuffix("_local")
        assert one["type"] == "STRICT_DNS"
        (group,) = one["load_assignment"]["endpoints"]
        (endpoint,) = group["lb_endpoints"]
        where = endpoint["endpoint"]["address"]["socket_address"]
        assert where["address"] == f"strongbox-{service}"
        assert one["health_checks"], "a pod that is gone is left at once, whatever DNS still says"


def test_any_seal_replica_answers_for_the_own_node_and_is_held_to_its_name(configuration: Any) -> None:
    clusters = {one["name"]: one for one in configuration["static_resources"]["clusters"]}
    tls = clusters["seal_local"]["transport_socket"]["typed_config"]["common_tls_context"]
    (name,) = tls["combined_validation_context"]["default_validation_context"][
        "match_typed_subject_alt_names"
    ]
    assert name["matcher"] == {"prefix": "spiffe://strongbox/seal/"}


def test_only_tls_listens_to_others(configuration: Any) -> None:
    listeners = {
        one["name"]: one["address"]["socket_address"]
        for one in configuration["static_resources"]["listeners"]
    }
    assert listeners == {
        "plain": {"address": "127.0.0.1", "port_value": 8080},
        "tls": {"address": "0.0.0.0", "port_value": 8443},
    }


def test_certificates_come_by_sds_and_no_key_is_in_the_configuration(folder: Path) -> None:
    assert "PRIVATE" not in "".join(path.read_text("utf-8") for path in folder.iterdir())
    (secret,) = json.loads((folder / "sds-identity.json").read_text("utf-8"))["resources"]
    assert secret["tls_certificate"]["watched_directory"]["path"]
    assert "filename" in secret["tls_certificate"]["private_key"]
