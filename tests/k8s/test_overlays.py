"""The overlays build, are what Kubernetes 1.37 takes, and keep every rule of docs/deploying.md."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from strongbox.config import SERVICES
from strongbox.rpc.server import READY
from tests.k8s.manifests import (
    BIN,
    OVERLAYS,
    containers,
    manifests,
    named,
    pods,
    text_of,
    workloads,
)
from tools import generate_manifests

THREE = ("prod", "prod-cert-manager")
STATEFUL = {"etcd", "seal", "audit"}
RUNNING = STATEFUL | {"kv", "auth", "lease", "gateway"}
OURS = "cert-manager.io/v1"  # whose schemas nobody here has


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_for_kubernetes_1_37_to_the_letter(overlay: str, tmp_path: Any) -> None:
    known = [doc for doc in text_of(overlay).split("\n---\n") if OURS not in doc]
    file = tmp_path / "all.yaml"
    file.write_text("\n---\n".join(known))
    command = [str(BIN / "kubernetes-validate"), "-k", "1.37", "--strict", "--quiet", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(known) > 30


def test_the_validator_refuses_what_is_wrong(tmp_path: Any) -> None:
    """A check that can fail."""
    file = tmp_path / "all.yaml"
    file.write_text(text_of("prod").replace("replicas: 3", "replicas: three", 1))
    command = [str(BIN / "kubernetes-validate"), "-k", "1.37", "--strict", "--quiet", str(file)]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_keeps_a_state_is_a_stateful_set_and_the_rest_deployments(overlay: str) -> None:
    found = workloads(overlay)
    assert found.keys() == RUNNING
    assert {name for name, one in found.items() if one["kind"] == "StatefulSet"} == STATEFUL


@pytest.mark.parametrize(("overlay", "count"), [("dev", 1), ("prod", 3), ("prod-cert-manager", 3)])
def test_there_are_so_many_of_each(overlay: str, count: int) -> None:
    told = {name: one["spec"].get("replicas") for name, one in workloads(overlay).items()}
    # What the autoscaler has added is not for `kubectl apply` to take away.
    assert told.pop("kv") is None
    assert {*told.values()} == {count}
    scaler = named(overlay, "HorizontalPodAutoscaler", "strongbox-kv")["spec"]
    assert scaler["minReplicas"] == count
    assert scaler["maxReplicas"] == (9 if count == 3 else 1)
    assert scaler["scaleTargetRef"]["name"] == "strongbox-kv"


@pytest.mark.parametrize("overlay", THREE)
def test_no_more_than_one_of_each_is_taken_away_on_purpose(overlay: str) -> None:
    for name, one in workloads(overlay).items():
        budget = named(overlay, "PodDisruptionBudget", f"strongbox-{name}")["spec"]
        assert budget["maxUnavailable"] == 1
        # What holds nothing keeps no drain waiting when it never gets ready.
        assert budget.get("unhealthyPodEvictionPolicy") == (None if name in STATEFUL else "AlwaysAllow")
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        if one["kind"] == "Deployment":
            assert one["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        else:
            assert one["spec"]["updateStrategy"]["type"] == "RollingUpdate"
            assert "partition" not in one["spec"]["updateStrategy"].get("rollingUpdate", {})
        assert one["spec"]["minReadySeconds"] >= 5


@pytest.mark.parametrize("overlay", THREE)
def test_replicas_are_on_different_nodes_and_spread_over_zones(overlay: str) -> None:
    for name, one in workloads(overlay).items():
        pod = one["spec"]["template"]["spec"]
        kind = "required" if name in STATEFUL else "preferred"
        (rule,) = pod["affinity"]["podAntiAffinity"][f"{kind}DuringSchedulingIgnoredDuringExecution"]
        term = rule if name in STATEFUL else rule["podAffinityTerm"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        (spread,) = pod["topologySpreadConstraints"]
        assert spread["topologyKey"] == "topology.kubernetes.io/zone"
        labels = one["spec"]["template"]["metadata"]["labels"]
        for selector in (term["labelSelector"], spread["labelSelector"]):
            assert selector["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_container_may_more_than_it_must(overlay: str) -> None:
    for name, pod in pods(overlay):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False, name
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert not pod.get(key)
        assert not [volume for volume in pod.get("volumes", ()) if "hostPath" in volume]
        for one in containers(pod):
            mine = one["securityContext"]
            assert mine["allowPrivilegeEscalation"] is False
            assert mine["readOnlyRootFilesystem"] is True
            assert mine["capabilities"]["drop"] == ["ALL"]
            assert "add" not in mine["capabilities"], name
            resources = one["resources"]
            for wanted in ("requests", "limits"):
                assert resources[wanted].keys() == {"cpu", "memory"}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_admits_nothing_beyond_restricted(overlay: str) -> None:
    labels = named(overlay, "Namespace", "strongbox")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_said_that_the_api_server_drops(overlay: str) -> None:
    """Or `kubectl diff` right after `kubectl apply` is not quiet."""
    for one in manifests(overlay):
        if one["kind"] == "NetworkPolicy":
            assert [] not in one["spec"].values(), one["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_replaced_as_a_whole_says_its_defaults(overlay: str) -> None:
    """Or `kubectl apply` finds a difference to what the API server made of it, each time, and sends all."""
    for one in manifests(overlay):
        spec = one.get("spec", {})
        if one["kind"] == "NetworkPolicy":
            rules = [*spec.get("ingress", ()), *spec.get("egress", ())]
            assert all(port["protocol"] in ("TCP", "UDP") for rule in rules for port in rule["ports"])
        if one["kind"] == "Deployment" and "strategy" in spec:
            assert spec["strategy"]["type"] == "RollingUpdate"
        for claim in spec.get("volumeClaimTemplates", ()):
            assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
            assert claim["spec"]["volumeMode"] == "Filesystem"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_has_a_version_and_etcd_is_3_6(overlay: str) -> None:
    images = {one["image"] for _, pod in pods(overlay) for one in containers(pod)}
    assert len(images) == 3
    assert all(image.partition(":")[2] not in ("", "latest") for image in images)
    (etcd,) = [image for image in images if "etcd" in image]
    version = tuple(int(part) for part in etcd.rpartition(":v")[2].split("."))
    assert (3, 6, 13) <= version < (3, 7)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_sealed_replica_stays_in_its_service(overlay: str) -> None:
    """Probes ask what a sealed service answers with yes, and liveness what even one without etcd answers."""
    for name in SERVICES:
        (one,) = workloads(overlay)[name]["spec"]["template"]["spec"]["containers"]
        # Whether the next replica may be taken away; a sealed one says yes once it knows that all are.
        assert one["readinessProbe"]["grpc"] == {"port": 8390, "service": READY}
        for kind in ("livenessProbe", "startupProbe"):
            assert one[kind]["grpc"] == {"port": 8390, "service": "live"}
        patience = one["livenessProbe"]["periodSeconds"] * one["livenessProbe"]["failureThreshold"]
        assert patience >= 30, "a stalled node is no reason to lose a seal replica's key"
    gateway = workloads(overlay)["gateway"]["spec"]["template"]["spec"]["containers"][0]
    for kind in ("readinessProbe", "livenessProbe"):
        assert "tcpSocket" in gateway[kind], "a sealed cluster is unsealed through the gateway"


SLOW_DISK = 24 << 20  # bytes a second; audit itself reads some 100 MB/s (docs/performance-audit.md)


def startup_patience(overlay: str, name: str) -> int:
    """Seconds until a container that has not answered yet is killed."""
    (one,) = workloads(overlay)[name]["spec"]["template"]["spec"]["containers"]
    probe = one["startupProbe"]
    return int(probe["periodSeconds"] * probe["failureThreshold"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_reads_all_its_data_at_start_is_given_the_time(overlay: str) -> None:
    """Or a full one that is restarted is killed before it is up, again and again."""
    (etcd,) = workloads(overlay)["etcd"]["spec"]["template"]["spec"]["containers"]
    (flag,) = [arg for arg in etcd["args"] if arg.startswith("--quota-backend-bytes=")]
    assert startup_patience(overlay, "etcd") >= int(flag.partition("=")[2]) / SLOW_DISK
    (claim,) = workloads(overlay)["audit"]["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert size.endswith("Gi")
    assert startup_patience(overlay, "audit") >= (int(size[:-2]) << 30) / SLOW_DISK


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_a_renewal_that_hangs_ends_before_the_next_one_is_due(overlay: str) -> None:
    """Only one runs at a time: one without an end, its image not found, would be the last."""
    spec = named(overlay, "CronJob", "strongbox-certificates")["spec"]
    minute, hour, *rest = spec["schedule"].split()
    assert minute.isdigit()
    assert hour.isdigit()
    assert rest == ["*", "*", "*"], "daily"
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] <= 3600


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_service_is_headless_but_the_one_door(overlay: str) -> None:
    for one in manifests(overlay):
        if one["kind"] == "Service":
            name = one["metadata"]["name"].removeprefix("strongbox-")
            headless = one["spec"].get("clusterIP") == "None"
            assert headless is (name != "gateway"), name
            early = one["spec"].get("publishNotReadyAddresses", False)
            assert early is (name in ("etcd", "seal")), name
    assert [port["port"] for port in named(overlay, "Service", "strongbox-gateway")["spec"]["ports"]] == [443]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_namespace(overlay: str) -> None:
    no_place = ("Namespace", "ClusterRoleBinding")
    places = {one["metadata"].get("namespace") for one in manifests(overlay) if one["kind"] not in no_place}
    assert places == {"strongbox"}


def test_what_follows_from_tables_is_current() -> None:
    assert generate_manifests.stale() == [], "make manifests"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_upgrade_has_an_order_with_the_gateway_last(overlay: str) -> None:
    order = {
        int(one["metadata"]["annotations"]["strongbox/upgrade-order"]): name
        for name, one in workloads(overlay).items()
    }
    assert [order[number] for number in sorted(order)] == [
        "etcd", "seal", "audit", "lease", "auth", "kv", "gateway",
    ]  # fmt: skip
