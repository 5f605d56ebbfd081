"""Taking objects away: at once, with a pod's grace, with what they own, or by eviction within a budget."""

from __future__ import annotations

from typing import Any

from tests.rehearsal.control.store import Key, Object, Refusal, Store, conflict, now


def delete(store: Store, key: Key, grace: int | None = None, uid: str | None = None) -> Object:
    """A pod gets `grace` seconds (its own by default); all else goes at once. Raises Refusal 404, 409."""
    plural, namespace, name = key
    value = store.get(*key)
    if uid and value["metadata"]["uid"] != uid:
        raise conflict(plural, name)
    if plural == "namespaces":
        _empty(store, name)
    if plural != "pods":
        store.remove(plural, namespace, name)
        _remove_owned(store, value["metadata"]["uid"])
        return value
    seconds = grace if grace is not None else value["spec"].get("terminationGracePeriodSeconds", 30)
    if not value["spec"].get("nodeName"):
        store.remove(plural, namespace, name)
        return value

    def mark(pod: Object) -> None:
        pod["metadata"].setdefault("deletionTimestamp", now())
        pod["metadata"]["deletionGracePeriodSeconds"] = seconds

    return store.change(key, mark) or value


def evict(store: Store, namespace: str, name: str) -> None:
    """As `kubectl drain` asks for. Raises Refusal 429 when a budget forbids it."""
    pod = store.get("pods", namespace, name)
    for budget in store.list("poddisruptionbudgets", namespace):
        wanted = budget["spec"]["selector"]["matchLabels"]
        if wanted.items() <= pod["metadata"].get("labels", {}).items() and is_ready(pod):
            peers = [
                one
                for one in store.list("pods", namespace)
                if wanted.items() <= one["metadata"].get("labels", {}).items()
            ]
            healthy = sum(is_ready(one) and "deletionTimestamp" not in one["metadata"] for one in peers)
            expected = _expected(store, namespace, wanted)
            if healthy - 1 < expected - budget["spec"]["maxUnavailable"]:
                raise Refusal(
                    429, "TooManyRequests",
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                )  # fmt: skip
    delete(store, ("pods", namespace, name))


def _expected(store: Store, namespace: str, wanted: dict[str, str]) -> int:
    found = [*store.list("statefulsets", namespace), *store.list("deployments", namespace)]
    return sum(
        one["spec"]["replicas"]
        for one in found
        if wanted.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    )


def is_ready(pod: Object) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def condition(value: Object, kind: str) -> dict[str, Any]:
    """That condition, or {}."""
    for one in value.get("status", {}).get("conditions", ()):
        if one["type"] == kind:
            return dict(one)
    return {}


def _remove_owned(store: Store, uid: str) -> None:
    for (plural, namespace, name), value in [*store.objects.items()]:
        if any(owner["uid"] == uid for owner in value["metadata"].get("ownerReferences", ())):
            delete(store, (plural, namespace, name))


def _empty(store: Store, namespace: str) -> None:
    for plural, place, name in [*store.objects]:
        if place == namespace and (plural, place, name) in store.objects:
            delete(store, (plural, place, name))
