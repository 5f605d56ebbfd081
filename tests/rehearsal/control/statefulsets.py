"""StatefulSets: ordinals, claims that stay, updates from the highest ordinal down."""

from __future__ import annotations

from tests.rehearsal.control import podmaking
from tests.rehearsal.control.deleting import delete, is_ready
from tests.rehearsal.control.podmaking import PodMaker, is_available, is_leaving, is_over, owned
from tests.rehearsal.control.store import Object, Store
from tests.rehearsal.unknown import NotRehearsed


def reconcile_stateful_set(store: Store, maker: PodMaker, stateful: Object) -> None:
    """One step."""
    spec = stateful["spec"]
    replicas, patience = spec["replicas"], spec.get("minReadySeconds", 0)
    wanted = podmaking.revision(spec["template"])
    pods = {_ordinal(pod): pod for pod in owned(store, stateful)}
    for ordinal, pod in pods.items():
        if (is_over(pod) or ordinal >= replicas) and not is_leaving(pod):
            _delete(store, pod)
    _make_missing(store, maker, stateful, pods, wanted)
    _update(store, stateful, pods, wanted, patience)
    _tell(store, stateful, wanted)


def _make_missing(
    store: Store, maker: PodMaker, stateful: Object, pods: dict[int, Object], wanted: str
) -> None:
    spec = stateful["spec"]
    for ordinal in range(spec["replicas"]):
        if ordinal not in pods:
            current = _revision_for(stateful, ordinal, wanted)
            if current is not None:
                _make(store, maker, stateful, ordinal, current)
        in_order = spec["podManagementPolicy"] == "OrderedReady"
        if in_order and (ordinal not in pods or not is_ready(pods[ordinal])):
            return


def _revision_for(stateful: Object, ordinal: int, wanted: str) -> str | None:
    """A pod that is made anew is of the newest template, but for those below `partition`."""
    strategy = stateful["spec"]["updateStrategy"]
    below = strategy.get("rollingUpdate", {}).get("partition", 0)
    if strategy["type"] == "RollingUpdate" and ordinal < below and "status" in stateful:
        known = stateful["status"].get("currentRevision", wanted)
        if known != wanted:
            raise NotRehearsed("a partition's old pods made anew are not rehearsed")
    return wanted


def _make(store: Store, maker: PodMaker, stateful: Object, ordinal: int, current: str) -> None:
    metadata, spec = stateful["metadata"], stateful["spec"]
    name = f"{metadata['name']}-{ordinal}"
    volumes = [*spec["template"]["spec"].get("volumes", ())]
    for claim in spec.get("volumeClaimTemplates", ()):
        claimed = f"{claim['metadata']['name']}-{name}"
        if store.find("persistentvolumeclaims", metadata["namespace"], claimed) is None:
            place = {"name": claimed, "namespace": metadata["namespace"]}
            value = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": place}
            store.create(
                "persistentvolumeclaims", value | {"spec": claim["spec"], "status": {"phase": "Bound"}}
            )
        volumes.append({"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": claimed}})
    labels = {
        podmaking.REVISION: current,
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(ordinal),
    }
    more = {"hostname": name, "subdomain": spec.get("serviceName", ""), "volumes": volumes}
    maker.make(stateful, name, labels, more)


def _update(store: Store, stateful: Object, pods: dict[int, Object], wanted: str, patience: float) -> None:
    strategy = stateful["spec"]["updateStrategy"]
    if strategy["type"] != "RollingUpdate":
        return
    for ordinal in range(stateful["spec"]["replicas"] - 1, strategy["rollingUpdate"]["partition"] - 1, -1):
        pod = pods.get(ordinal)
        if pod is None:
            return
        if pod["metadata"]["labels"][podmaking.REVISION] != wanted:
            if not is_leaving(pod):
                _delete(store, pod)
            return
        if not is_available(pod, patience):
            return


def _tell(store: Store, stateful: Object, wanted: str) -> None:
    spec, metadata = stateful["spec"], stateful["metadata"]
    pods = [pod for pod in owned(store, stateful) if not is_leaving(pod)]
    updated = [pod for pod in pods if pod["metadata"]["labels"][podmaking.REVISION] == wanted]
    ready = sum(is_ready(pod) for pod in pods)

    def tell(value: Object) -> None:
        known = value.get("status", {}).get("currentRevision", wanted)
        complete = len(updated) == spec["replicas"] and all(is_ready(pod) for pod in updated)
        value["status"] = {
            "observedGeneration": metadata["generation"],
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": sum(is_available(pod, spec.get("minReadySeconds", 0)) for pod in pods),
            "updatedReplicas": len(updated),
            "currentRevision": wanted if complete else known,
            "updateRevision": wanted,
        }

    store.change(("statefulsets", metadata["namespace"], metadata["name"]), tell)


def _ordinal(pod: Object) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def _delete(store: Store, pod: Object) -> None:
    metadata = pod["metadata"]
    delete(store, ("pods", metadata["namespace"], metadata["name"]))
