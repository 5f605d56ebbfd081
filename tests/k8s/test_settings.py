"""The manifests and the local cluster give the same code the same settings, but for addresses and timing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from strongbox.config import PREFIX, SERVICES, Settings, load
from strongbox.dev.layout import Layout
from strongbox.dev.processes import services
from strongbox.setup.certificates import leaves
from strongbox.setup.settings import (
    CertificateSettings,
    EtcdUsersSettings,
    FromEnvironment,
    GatewayRenderSettings,
)
from tests.k8s.manifests import OVERLAYS, environment, named, pods, workloads
from tools.manifests import ETCD, ETCD_METRICS, ETCD_PEER, GATEWAY_TLS, METRICS, PORTS

PROBE = 8390


def main_of(overlay: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod of a workload, and its container."""
    pod = workloads(overlay)[name]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def settings_of(overlay: str, service: str, pod_name: str = "strongbox-x-0") -> Settings:
    """What the service's process would make of the manifest. Raises ConfigError."""
    _, container = main_of(overlay, service)
    told = environment(overlay, container)
    given = {
        name: value.replace("$(POD_NAME)", pod_name).replace("$(POD_IP)", "192.0.2.1")
        for name, value in told.items()
        if isinstance(value, str)
    }
    assert {name.removeprefix(PREFIX).lower() for name in given} <= {*Settings.model_fields}
    return load(service, given)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_service_finds_everything_where_the_manifests_put_it(overlay: str, service: str) -> None:
    pod_name = f"strongbox-{service}-0"
    found = settings_of(overlay, service, pod_name)
    pod, container = main_of(overlay, service)
    assert container["args"] == [f"services.{service}"]
    assert found.node_id == pod_name
    assert found.profile == "kubernetes"
    assert found.listen == f"0.0.0.0:{PORTS[service]}"
    assert found.advertise.endswith(f":{PORTS[service]}")
    ports = {port["containerPort"] for port in container["ports"]}
    assert ports == {PORTS[service], PROBE, METRICS}
    assert found.probe_listen == f"0.0.0.0:{PROBE}"
    assert found.metrics_listen == f"0.0.0.0:{METRICS}"
    (exposed,) = named(overlay, "Service", f"strongbox-{service}")["spec"]["ports"]
    assert (exposed["port"], exposed["targetPort"]) == (PORTS[service], "grpc")
    files = [found.tls_cert, found.tls_key, found.tls_ca]
    files += [found.upkeep_cert, found.upkeep_key] if service == "kv" else []
    assert (found.upkeep_cert is not None) is (service == "kv")
    files += [found.reviewer_token_file] if service == "auth" else []
    assert (found.reviewer_token_file is not None) is (service == "auth")
    for path in files:
        assert path is not None
        assert _is_mounted(pod, container, path), f"{path} is in no volume"


def _is_mounted(pod: dict[str, Any], container: dict[str, Any], path: Path) -> bool:
    """Whether a volume of secrets or of a service account's token brings this very file."""
    for mount in container["volumeMounts"]:
        if not path.is_relative_to(mount["mountPath"]):
            continue
        (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
        rest = str(path.relative_to(mount["mountPath"]))
        if "secret" in volume:
            return rest in ("tls.crt", "tls.key", "ca.crt")
        sources = volume["projected"]["sources"]
        items = [item for one in sources for item in one.get("secret", {}).get("items", ())]
        items += [one["serviceAccountToken"] for one in sources if "serviceAccountToken" in one]
        return rest in {item["path"] for item in items}
    return False


@pytest.mark.parametrize(("overlay", "count"), [("dev", 1), ("prod", 3), ("prod-cert-manager", 3)])
def test_every_member_and_every_seal_replica_is_named(overlay: str, count: int) -> None:
    found = settings_of(overlay, "kv")
    assert found.etcd_endpoints == tuple(f"strongbox-etcd-{n}.strongbox-etcd:{ETCD}" for n in range(count))
    wanted = tuple(f"strongbox-seal-{n}.strongbox-seal:{PORTS['seal']}" for n in range(count))
    assert found.seal_addresses == wanted
    # A replica knows itself among them by what it advertises.
    assert settings_of(overlay, "seal", "strongbox-seal-0").advertise == wanted[0]
    pod, container = main_of(overlay, "etcd")
    members = environment(overlay, container)["INITIAL_CLUSTER"].split(",")
    assert [member.partition("=")[0] for member in members] == [f"strongbox-etcd-{n}" for n in range(count)]
    assert all(member.endswith(f".strongbox-etcd:{ETCD_PEER}") for member in members)
    assert {port["containerPort"] for port in container["ports"]} == {ETCD, ETCD_PEER, ETCD_METRICS}
    assert pod["volumes"][0]["secret"]["secretName"] == "strongbox-etcd-tls"


@pytest.mark.parametrize("service", SERVICES)
def test_the_local_cluster_differs_in_addresses_timing_and_size_only(service: str, tmp_path: Path) -> None:
    names = (*SERVICES, "etcd", "etcd-peer")
    layout = Layout(tmp_path, 1, 1, False, False, "", {"node-1": dict.fromkeys(names, 1)})
    local = load(service, services.service(layout, "node-1", service).environment)
    there = settings_of("prod", service)
    different = {name for name in Settings.model_fields if getattr(local, name) != getattr(there, name)}
    addresses = {"listen", "advertise", "etcd_endpoints", "seal_addresses", "metrics_listen", "probe_listen"}
    paths = {"tls_cert", "tls_key", "tls_ca", "upkeep_cert", "upkeep_key", "data_dir"}
    assert different <= addresses | paths | {"node_id", "profile", "etcd_quota_mib", "reviewer_token_file"}


def test_services_know_the_quota_that_etcd_is_given() -> None:
    _, container = main_of("prod", "etcd")
    (flag,) = [one for one in container["args"] if one.startswith("--quota-backend-bytes=")]
    assert settings_of("prod", "kv").etcd_quota_mib << 20 == int(flag.partition("=")[2])


SEALS = 5  # at most
SETUP: dict[str, type[FromEnvironment]] = {
    "etcd-users": EtcdUsersSettings,
    "gateway": GatewayRenderSettings,
    "certificates": CertificateSettings,
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setup_command_understands_its_environment(overlay: str) -> None:
    done = set()
    for name, pod in pods(overlay):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            if container.get("args", [""])[0] != "strongbox.setup":
                continue
            command = container["args"][1]
            told = {
                key: value if isinstance(value, str) else "strongbox"
                for key, value in environment(overlay, container).items()
            }
            found = SETUP[command].load(told)
            done.add(command)
            if isinstance(found, GatewayRenderSettings):
                for service in SERVICES:
                    assert getattr(found, f"{service}_address") == f"strongbox-{service}:{PORTS[service]}"
                assert found.gateway_tls_listen == f"0.0.0.0:{GATEWAY_TLS}"
                assert name == "Deployment/strongbox-gateway"
    assert done == {*SETUP} - ({"certificates"} if overlay == "prod-cert-manager" else set())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_that_is_mounted_is_made_and_its_name_is_one_of_ours(overlay: str) -> None:
    made = {name for name, _ in leaves("strongbox", 3)}
    mounted = set()
    for _, pod in pods(overlay):
        for volume in pod.get("volumes", ()):
            if "secret" in volume:
                mounted.add(volume["secret"]["secretName"])
            for one in volume.get("projected", {}).get("sources", ()):
                if "secret" in one:
                    mounted.add(one["secret"]["name"])
    assert mounted == made | {"strongbox-seal-3-tls", "strongbox-seal-4-tls"}  # optional: more replicas
    if overlay == "prod-cert-manager":
        for name in made:
            certificate = named(overlay, "Certificate", name.removesuffix("-tls"))
            assert certificate["spec"]["secretName"] == name
    else:
        role = named(overlay, "Role", "strongbox-certificates")
        most = {name for name, _ in leaves("strongbox", SEALS)}
        assert {*role["rules"][1]["resourceNames"]} == most | {"strongbox-authority-tls"}


def test_no_more_seal_replicas_can_be_set_than_the_role_and_the_volume_know() -> None:
    CertificateSettings(namespace="strongbox", seal_replicas=SEALS)
    with pytest.raises(ValidationError):
        CertificateSettings(namespace="strongbox", seal_replicas=SEALS + 1)
    (volume,) = [one for one in main_of("prod", "seal")[0]["volumes"] if one["name"] == "tls"]
    assert len(volume["projected"]["sources"]) == SEALS


def test_only_who_compacts_etcd_has_the_certificate_for_it() -> None:
    holders = {
        name
        for name, pod in pods("prod")
        for volume in pod.get("volumes", ())
        if volume.get("secret", {}).get("secretName") in ("strongbox-upkeep-tls", "strongbox-operator-tls")
    }
    assert holders == {"Deployment/strongbox-kv", "Deployment/strongbox-etcd-users"}
