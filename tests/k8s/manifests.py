"""The overlays as Kubernetes would get them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("dev", "prod", "prod-cert-manager")
BIN = Path(sys.executable).parent
Manifest = dict[str, Any]
RUN_ONCE = {"certificates", "etcd-users"}  # their work is an init container's


@cache
def text_of(overlay: str) -> str:
    """What `kubectl kustomize` makes of it. Raises CalledProcessError."""
    return built(ROOT / "k8s" / "overlays" / overlay)


def built(folder: Path) -> str:
    """What `kubectl kustomize` makes of a folder. Raises CalledProcessError."""
    command = [str(BIN / "kubectl"), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def parsed(text: str) -> tuple[Manifest, ...]:
    """Each object."""
    return tuple(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@cache
def manifests(overlay: str) -> tuple[Manifest, ...]:
    return parsed(text_of(overlay))


def named(overlay: str, kind: str, name: str) -> Manifest:
    """Raises LookupError."""
    for one in manifests(overlay):
        if (one["kind"], one["metadata"]["name"]) == (kind, name):
            return one
    raise LookupError(f"{overlay} has no {kind} {name}")


def workloads(overlay: str) -> dict[str, Manifest]:
    """StatefulSets and Deployments that serve, by the name behind `strongbox-`."""
    found = {
        one["metadata"]["name"].removeprefix("strongbox-"): one
        for one in manifests(overlay)
        if one["kind"] in ("StatefulSet", "Deployment")
    }
    return {name: one for name, one in found.items() if name not in RUN_ONCE}


def pods(overlay: str) -> Iterator[tuple[str, Manifest]]:
    """(kind/name, pod spec) of everything that runs."""
    for one in manifests(overlay):
        spec = one.get("spec", {})
        if one["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield f"{one['kind']}/{one['metadata']['name']}", spec["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def environment(overlay: str, container: Manifest) -> dict[str, str]:
    """What the container's process would have, with `$(POD_NAME)` and the like as they stand."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"]
    for one in container.get("env", ()):
        found[one["name"]] = one.get("value", one.get("valueFrom"))
    return found
