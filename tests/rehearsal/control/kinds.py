"""The kinds of object that the stand-in knows, and how the API server tells clients of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.rehearsal.control.store import Object


@dataclass(frozen=True)
class Kind:
    """A resource: where it is, what it is called."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


_RBAC = "rbac.authorization.k8s.io"
KINDS = (
    Kind("namespaces", "Namespace", namespaced=False, short=("ns",)),
    Kind("nodes", "Node", namespaced=False, short=("no",)),
    Kind("pods", "Pod", short=("po",)),
    Kind("services", "Service", short=("svc",)),
    Kind("configmaps", "ConfigMap", short=("cm",)),
    Kind("secrets", "Secret"),
    Kind("serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
    Kind("events", "Event", short=("ev",)),
    Kind("statefulsets", "StatefulSet", "apps", short=("sts",)),
    Kind("deployments", "Deployment", "apps", short=("deploy",)),
    Kind("replicasets", "ReplicaSet", "apps", short=("rs",)),
    Kind("daemonsets", "DaemonSet", "apps", short=("ds",)),
    Kind("jobs", "Job", "batch"),
    Kind("cronjobs", "CronJob", "batch", short=("cj",)),
    Kind("poddisruptionbudgets", "PodDisruptionBudget", "policy", short=("pdb",)),
    Kind("networkpolicies", "NetworkPolicy", "networking.k8s.io", short=("netpol",)),
    Kind("roles", "Role", _RBAC),
    Kind("rolebindings", "RoleBinding", _RBAC),
    Kind("clusterroles", "ClusterRole", _RBAC, namespaced=False),
    Kind("clusterrolebindings", "ClusterRoleBinding", _RBAC, namespaced=False),
    Kind("horizontalpodautoscalers", "HorizontalPodAutoscaler", "autoscaling", "v2", short=("hpa",)),
    Kind("tokenreviews", "TokenReview", "authentication.k8s.io", namespaced=False),
)
CERT_MANAGER = (
    Kind("issuers", "Issuer", "cert-manager.io"),
    Kind("certificates", "Certificate", "cert-manager.io", short=("cert",)),
)
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def api_versions() -> Object:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(kinds: tuple[Kind, ...]) -> Object:
    """`GET /apis`."""
    found = []
    for group, version in dict.fromkeys((k.group, k.version) for k in kinds if k.group):
        one = {"groupVersion": f"{group}/{version}", "version": version}
        found.append({"name": group, "versions": [one], "preferredVersion": one})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def resources(kinds: tuple[Kind, ...], group_version: str) -> Object | None:
    """`GET /apis/<group>/<version>`; None: there is none."""
    mine = [k for k in kinds if k.group_version == group_version]
    if not mine:
        return None
    found: list[dict[str, Any]] = [
        {
            "name": k.plural, "singularName": k.kind.lower(), "namespaced": k.namespaced, "kind": k.kind,
            "verbs": _VERBS, "shortNames": [*k.short],
        }
        for k in mine
    ]  # fmt: skip
    if group_version == "v1":
        found += [
            {"name": "pods/eviction", "singularName": "", "namespaced": True, "kind": "Eviction",
             "group": "policy", "version": "v1", "verbs": ["create"]},
            {"name": "serviceaccounts/token", "singularName": "", "namespaced": True, "kind": "TokenRequest",
             "group": "authentication.k8s.io", "version": "v1", "verbs": ["create"]},
        ]  # fmt: skip
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}


def openapi_index(kinds: tuple[Kind, ...]) -> Object:
    """`GET /openapi/v3`."""
    paths = {}
    for version in dict.fromkeys(k.group_version for k in kinds):
        place = f"apis/{version}" if "/" in version else f"api/{version}"
        paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}"}
    return {"paths": paths}


def openapi(kinds: tuple[Kind, ...], group_version: str) -> Object:
    """Only as much as kubectl wants to know: that the server checks fields itself (tests/k8s checks them)."""
    place = f"apis/{group_version}" if "/" in group_version else f"api/{group_version}"
    paths = {}
    for k in kinds:
        if k.group_version == group_version:
            named = {"group": k.group, "version": k.version, "kind": k.kind}
            checked = {
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "x-kubernetes-group-version-kind": named,
                "responses": {},
            }
            middle = "/namespaces/{namespace}" if k.namespaced else ""
            paths[f"/{place}{middle}/{k.plural}/{{name}}"] = {"patch": checked}
    info = {"title": "Kubernetes", "version": "v1.37.0"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
