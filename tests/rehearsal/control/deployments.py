"""Deployments, and the autoscaler's lower bound."""

from __future__ import annotations

import math
from typing import Any

from tests.rehearsal.control import podmaking
from tests.rehearsal.control.deleting import delete, is_ready
from tests.rehearsal.control.podmaking import PodMaker, is_available, is_leaving, is_over, owned
from tests.rehearsal.control.store import Object, Store, now


def reconcile_deployment(store: Store, maker: PodMaker, deployment: Object) -> None:
    """One step: pods of the new template within maxSurge, old ones away within maxUnavailable."""
    spec = deployment["spec"]
    replicas, patience = spec["replicas"], spec.get("minReadySeconds", 0)
    wanted = podmaking.revision(spec["template"])
    pods = [pod for pod in owned(store, deployment) if not is_leaving(pod) and not is_over(pod)]
    new = [p for p in pods if p["metadata"]["labels"][podmaking.TEMPLATE] == wanted]
    old = [p for p in pods if p not in new]
    surge, missing = _bounds(spec, replicas)
    for _ in range(min(replicas - len(new), replicas + surge - len(pods))):
        name = f"{deployment['metadata']['name']}-{wanted}-{podmaking.suffix()}"
        if maker.make(deployment, name, {podmaking.TEMPLATE: wanted}, {}):
            pods.append({})
    available = sum(is_available(pod, patience) for pod in pods if pod)
    for pod in new[replicas:]:
        _delete(store, pod)
    may_go = available - (replicas - missing)
    for pod in sorted(old, key=lambda pod: is_available(pod, patience)):
        if not is_available(pod, patience):
            _delete(store, pod)
        elif may_go > 0:
            may_go -= 1
            _delete(store, pod)
    _tell(store, deployment, new, old, patience)


def _bounds(spec: Object, replicas: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods."""
    if spec["strategy"]["type"] == "Recreate":
        return 0, replicas
    told = spec["strategy"]["rollingUpdate"]
    return _of(told["maxSurge"], replicas, math.ceil), _of(told["maxUnavailable"], replicas, math.floor)


def _of(value: int | str, replicas: int, rounded: Any) -> int:
    if isinstance(value, str):
        return int(rounded(int(value.rstrip("%")) * replicas / 100))
    return value


def _delete(store: Store, pod: Object) -> None:
    metadata = pod["metadata"]
    delete(store, ("pods", metadata["namespace"], metadata["name"]))


def _tell(store: Store, deployment: Object, new: list[Object], old: list[Object], patience: float) -> None:
    every = [*new, *old]
    available = sum(is_available(pod, patience) for pod in every)
    replicas = deployment["spec"]["replicas"]

    def tell(value: Object) -> None:
        status = "True" if available >= replicas else "False"
        before = {one["type"]: one for one in value.get("status", {}).get("conditions", ())}
        known = before.get("Available", {})
        since = known["lastTransitionTime"] if known.get("status") == status else now()
        value["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(every),
            "updatedReplicas": len(new),
            "readyReplicas": sum(is_ready(pod) for pod in every),
            "availableReplicas": available,
            "unavailableReplicas": max(0, replicas - available),
            "conditions": [{"type": "Available", "status": status, "lastTransitionTime": since}],
        }

    metadata = deployment["metadata"]
    store.change(("deployments", metadata["namespace"], metadata["name"]), tell)


def reconcile_autoscaler(store: Store, scaler: Object) -> None:
    """Without metrics it keeps to its bounds, and no more."""
    target = scaler["spec"]["scaleTargetRef"]
    low, high = scaler["spec"].get("minReplicas", 1), scaler["spec"]["maxReplicas"]
    found = store.find("deployments", scaler["metadata"]["namespace"], target["name"])
    if found is not None and not low <= found["spec"]["replicas"] <= high:
        found["spec"]["replicas"] = min(max(found["spec"]["replicas"], low), high)
        store.replace("deployments", found)
