"""The controllers make, replace and remove pods in the order that Kubernetes keeps."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.rehearsal.control import rules
from tests.rehearsal.control.deployments import reconcile_deployment
from tests.rehearsal.control.jobs import reconcile_job
from tests.rehearsal.control.podmaking import PodMaker
from tests.rehearsal.control.statefulsets import reconcile_stateful_set
from tests.rehearsal.control.store import Object, Store

LABELS = {"app": "x"}


@pytest.fixture
def store() -> Store:
    made = Store()
    made.create("namespaces", {"kind": "Namespace", "metadata": {"name": "here", "labels": {}}})
    made.create(
        "serviceaccounts", {"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "here"}}
    )
    return made


def workload(kind: str, image: str, **more: Any) -> Object:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": image}]}}
    spec = {"replicas": 3, "selector": {"matchLabels": LABELS}, "template": template, **more}
    place = {"name": "x", "namespace": "here"}
    return rules.defaulted({"apiVersion": "apps/v1", "kind": kind, "metadata": place, "spec": spec})


def images(store: Store) -> dict[str, str]:
    """Of the pods that stay, by name."""
    return {
        pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"]
        for pod in store.list("pods")
        if "deletionTimestamp" not in pod["metadata"]
    }


def ready(store: Store, *, seconds_ago: float = 100.0) -> None:
    """All pods are placed and ready since then; those that were to go are gone."""
    since = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds_ago)).isoformat()
    for pod in store.list("pods"):
        key = ("pods", "here", pod["metadata"]["name"])
        if "deletionTimestamp" in pod["metadata"]:
            store.remove(*key)
            continue
        told = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "since": since}]}
        if not pod["spec"].get("nodeName"):
            store.change(key, lambda value, told=told: value.update(status=told))  # type: ignore[misc]
            store.change(key, lambda value: value["spec"].update(nodeName="n"))


def test_a_stateful_set_is_updated_from_its_last_pod_on_and_waits_for_each(store: Store) -> None:
    maker = PodMaker(store)

    def step() -> None:
        reconcile_stateful_set(store, maker, store.get("statefulsets", "here", "x"))

    more = {"serviceName": "x", "podManagementPolicy": "Parallel", "minReadySeconds": 5}
    store.create("statefulsets", workload("StatefulSet", "old", **more))
    step()
    assert images(store) == {"x-0": "old", "x-1": "old", "x-2": "old"}
    ready(store)
    changed = workload("StatefulSet", "new", **more)["spec"]
    store.replace("statefulsets", store.get("statefulsets", "here", "x") | {"spec": changed})
    step()
    assert images(store) == {"x-0": "old", "x-1": "old"}, "the last one first, and no other"
    ready(store)
    step()
    ready(store, seconds_ago=1.0)
    step()
    assert images(store) == {"x-0": "old", "x-1": "old", "x-2": "new"}, "it is not ready for long enough"
    for pod in store.list("pods"):
        store.change(("pods", "here", pod["metadata"]["name"]), lambda value: value["spec"].pop("nodeName"))
    ready(store)
    step()
    assert images(store) == {"x-0": "old", "x-2": "new"}
    status = store.get("statefulsets", "here", "x")["status"]
    assert status["updateRevision"] != status["currentRevision"]


def test_a_deployment_surges_by_one_and_never_goes_below(store: Store) -> None:
    maker = PodMaker(store)
    bounds = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}

    def step() -> None:
        reconcile_deployment(store, maker, store.get("deployments", "here", "x"))

    store.create("deployments", workload("Deployment", "old", strategy=bounds))
    step()
    ready(store)
    store.replace("deployments", workload("Deployment", "new", strategy=bounds))
    step()
    assert sorted(images(store).values()) == ["new", "old", "old", "old"]
    step()
    assert len(images(store)) == 4, "the new one is not ready, so nobody goes"
    ready(store)
    step()
    assert sorted(images(store).values()) == ["new", "old", "old"]
    for _ in range(6):
        ready(store)
        step()
        assert len(images(store)) >= 3
    assert [*images(store).values()] == ["new"] * 3
    numbers = {
        one["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        for one in store.list("replicasets")
    }
    assert numbers == {"1", "2"}


def test_a_job_is_complete_with_its_pod_and_goes_after_its_time(store: Store) -> None:
    maker = PodMaker(store)
    job = workload("Job", "i", ttlSecondsAfterFinished=60)
    store.create("jobs", job)

    def step() -> None:
        for one in store.list("jobs"):
            reconcile_job(store, maker, one)

    step()
    (pod,) = store.list("pods")
    store.change(
        ("pods", "here", pod["metadata"]["name"]), lambda value: value["status"].update(phase="Succeeded")
    )
    step()
    assert store.get("jobs", "here", "x")["status"]["conditions"][0]["type"] == "Complete"
    step()
    long_ago = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=61)).strftime("%Y-%m-%dT%H:%M:%SZ")
    store.change(("jobs", "here", "x"), lambda value: value["status"].update(completionTime=long_ago))
    step()
    assert store.list("jobs") == store.list("pods") == []


def test_a_pod_beyond_the_restricted_standard_is_not_admitted(store: Store) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    store.change(("namespaces", "", "here"), lambda value: value["metadata"].update(labels=labels))
    maker = PodMaker(store)
    store.create("deployments", workload("Deployment", "i"))
    reconcile_deployment(store, maker, store.get("deployments", "here", "x"))
    assert store.list("pods") == []
    assert "runAsNonRoot" in next(iter(maker.refused.values()))
