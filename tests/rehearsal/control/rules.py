"""What the API server adds to an object, what it refuses, and the `restricted` pod security standard."""

from __future__ import annotations

import base64
import binascii
import copy
import re
from typing import Any

from tests.rehearsal.control.store import Object, Refusal

MAX_SECRET = 1 << 20  # bytes of all values together
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip
# What may change of a StatefulSet's spec.
_STATEFUL = {
    "replicas", "template", "updateStrategy", "minReadySeconds", "ordinals", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
}  # fmt: skip


def invalid(kind: str, name: str, field: str, why: str) -> Refusal:
    return Refusal(422, "Invalid", f'{kind} "{name}" is invalid: {field}: {why}', (field,))


def defaulted(value: Object) -> Object:
    """The object with the defaults that somebody here or in kubectl looks at."""
    value = copy.deepcopy(value)
    spec = value.get("spec", {})
    if value["kind"] == "Deployment":
        spec.setdefault("replicas", 1)
        spec.setdefault("progressDeadlineSeconds", 600)
        strategy = spec.setdefault("strategy", {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            strategy["rollingUpdate"] = {"maxSurge": "25%", "maxUnavailable": "25%"} | strategy.get(
                "rollingUpdate", {}
            )
    elif value["kind"] == "StatefulSet":
        spec.setdefault("replicas", 1)
        spec.setdefault("podManagementPolicy", "OrderedReady")
        strategy = spec.setdefault("updateStrategy", {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    elif value["kind"] == "Job":
        for name, default in (("backoffLimit", 6), ("completions", 1), ("parallelism", 1)):
            spec.setdefault(name, default)
    elif value["kind"] == "Secret":
        value.setdefault("type", "Opaque")
        for name, text in value.pop("stringData", {}).items():
            value.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
    elif value["kind"] == "NetworkPolicy":
        for direction in ("ingress", "egress"):
            if spec.get(direction) == []:
                del spec[direction]
    return value


def check(value: Object, old: Object | None) -> None:
    """Raises Refusal 422: a name that is none, what must not change, a secret that is none."""
    kind, name = value["kind"], value["metadata"]["name"]
    if not _NAME.match(name) or len(name) > 253:
        raise invalid(kind, name, "metadata.name", "is no DNS name")
    if kind == "Secret":
        _check_secret(value, old)
    if kind in ("StatefulSet", "Deployment") and not _selects(value):
        raise invalid(kind, name, "spec.template.metadata.labels", "`selector` does not match them")
    if old is None or "spec" not in old:
        return
    new, was = value["spec"], old["spec"]
    if kind == "Job" and not _same_but_for(new, was, {"suspend", "parallelism", "ttlSecondsAfterFinished",
                                                      "backoffLimit", "activeDeadlineSeconds"}):  # fmt: skip
        raise invalid(kind, name, "spec.template", "field is immutable")
    if kind == "StatefulSet" and not _same_but_for(new, was, _STATEFUL):
        raise invalid(kind, name, "spec", "updates to statefulset spec for these fields are forbidden")
    if kind == "Deployment" and new.get("selector") != was.get("selector"):
        raise invalid(kind, name, "spec.selector", "field is immutable")
    if (
        kind == "Service"
        and "clusterIP" in was
        and new.get("clusterIP", was["clusterIP"]) != was["clusterIP"]
    ):
        raise invalid(kind, name, "spec.clusterIPs[0]", "may not change once set")


def _same_but_for(new: Object, old: Object, may: set[str]) -> bool:
    return all(new.get(name) == old.get(name) for name in (new.keys() | old.keys()) - may)


def _selects(value: Object) -> bool:
    wanted = value["spec"]["selector"]["matchLabels"]
    labels = value["spec"]["template"]["metadata"].get("labels", {})
    return bool(wanted) and wanted.items() <= labels.items()


def _check_secret(value: Object, old: Object | None) -> None:
    name, data = value["metadata"]["name"], value.get("data") or {}
    size = 0
    for key, text in data.items():
        try:
            size += len(base64.b64decode(text, validate=True))
        except (binascii.Error, TypeError, ValueError):
            raise invalid("Secret", name, f"data[{key}]", "is not base64") from None
    if size > MAX_SECRET:
        raise invalid("Secret", name, "data", "Too long: may not be more than 1048576 bytes")
    for key in ("tls.crt", "tls.key") if value["type"] == "kubernetes.io/tls" else ():
        if key not in data:
            raise invalid("Secret", name, f"data[{key}]", "Required value")
    if old is not None:
        if value["type"] != old["type"]:
            raise invalid("Secret", name, "type", "field is immutable")
        if old.get("immutable") and data != (old.get("data") or {}):
            raise invalid("Secret", name, "data", "field is immutable when `immutable` is set")


def check_restricted(pod: Object) -> None:
    """The `restricted` pod security standard. Raises Refusal 403."""
    wrong = [*_beyond_restricted(pod["spec"])]
    if wrong:
        raise Refusal(
            403, "Forbidden", f'violates PodSecurity "restricted:latest": {", ".join(wrong)}', ("spec",)
        )


def _beyond_restricted(spec: dict[str, Any]) -> list[str]:
    wrong = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    wrong += [f"volume {v['name']}" for v in spec.get("volumes", ()) if not (v.keys() - {"name"}) <= _VOLUMES]
    whole = spec.get("securityContext", {})
    for one in [*spec.get("initContainers", ()), *spec["containers"]]:
        name, mine = one["name"], one.get("securityContext", {})
        if mine.get("allowPrivilegeEscalation") is not False or mine.get("privileged"):
            wrong.append(f"{name}: allowPrivilegeEscalation != false")
        capabilities = mine.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or {*capabilities.get("add", ())} - {"NET_BIND_SERVICE"}:
            wrong.append(f"{name}: unrestricted capabilities")
        if not mine.get("runAsNonRoot", whole.get("runAsNonRoot")):
            wrong.append(f"{name}: runAsNonRoot != true")
        if mine.get("runAsUser", whole.get("runAsUser")) == 0:
            wrong.append(f"{name}: runAsUser=0")
        profile = mine.get("seccompProfile", whole.get("seccompProfile", {})).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            wrong.append(f"{name}: seccompProfile")
    return wrong
