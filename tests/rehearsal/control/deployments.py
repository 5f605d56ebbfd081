"""Deployments, and the autoscaler's lower bound."""

from __future__ import annotations

import copy
import math
from typing import Any

from tests.rehearsal.control import podmaking
from tests.rehearsal.control.deleting import delete, is_ready
from tests.rehearsal.control.podmaking import PodMaker, is_available, is_leaving, is_over, owned
from tests.rehearsal.control.store import Object, Store, now

_NUMBER = "deployment.kubernetes.io/revision"


def reconcile_deployment(store: Store, maker: PodMaker, deployment: Object) -> None:
    """One step: pods of the new template within maxSurge, old ones away within maxUnavailable."""
    spec = deployment["spec"]
    replicas, patience = spec["replicas"], spec.get("minReadySeconds", 0)
    wanted = podmaking.revision(spec["template"])
    pods = [pod for pod in owned(store, deployment) if not is_leaving(pod) and not is_over(pod)]
    new = [p for p in pods if p["metadata"]["labels"][podmaking.TEMPLATE] == wanted]
    old = [p for p in pods if p not in new]
    _remember(store, deployment, wanted)
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


def _remember(store: Store, deployment: Object, wanted: str) -> None:
    """Its templates, numbered, as the ReplicaSets that `kubectl rollout undo` looks at."""
    metadata = deployment["metadata"]
    namespace, name = metadata["namespace"], f"{metadata['name']}-{wanted}"
    known = {one["metadata"]["name"]: _number(one) for one in store.list("replicasets", namespace)
             if one["metadata"]["ownerReferences"][0]["uid"] == metadata["uid"]}  # fmt: skip
    last = max(known.values(), default=0)
    if name in known and known[name] == last:
        return
    told = {_NUMBER: str(last + 1)}
    if name in known:
        key = ("replicasets", namespace, name)
        store.change(key, lambda value: value["metadata"].update(annotations=told))
    else:
        template = copy.deepcopy(deployment["spec"]["template"])
        template["metadata"].setdefault("labels", {})[podmaking.TEMPLATE] = wanted
        owner = {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"],
            "controller": True,
        }  # fmt: skip
        place = {
            "name": name, "namespace": namespace, "annotations": told, "ownerReferences": [owner],
            "labels": template["metadata"]["labels"],
        }  # fmt: skip
        value = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": place}
        selector = {"matchLabels": template["metadata"]["labels"]}
        store.create(
            "replicasets", value | {"spec": {"replicas": 0, "template": template, "selector": selector}}
        )
    key = ("deployments", namespace, metadata["name"])
    store.change(key, lambda value: value["metadata"].setdefault("annotations", {}).update(told))


def _number(replica_set: Object) -> int:
    return int(replica_set["metadata"]["annotations"][_NUMBER])


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
