"""Jobs: a pod until it has succeeded, some more when it fails, gone some time after."""

from __future__ import annotations

import datetime as dt

from tests.rehearsal.control import podmaking
from tests.rehearsal.control.deleting import delete
from tests.rehearsal.control.podmaking import PodMaker, is_leaving, owned
from tests.rehearsal.control.store import Object, Store, now


def reconcile_job(store: Store, maker: PodMaker, job: Object) -> None:
    """One step."""
    spec, metadata = job["spec"], job["metadata"]
    key = ("jobs", metadata["namespace"], metadata["name"])
    ended = job.get("status", {}).get("completionTime")
    if ended:
        age = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(ended)).total_seconds()
        if age > spec.get("ttlSecondsAfterFinished", float("inf")):
            delete(store, key)
        return
    pods = owned(store, job)
    phases = [pod["status"].get("phase") for pod in pods]
    failed = phases.count("Failed") + sum(_restarts(pod) for pod in pods)
    if "Succeeded" in phases:
        _end(store, job, "Complete", succeeded=1, failed=failed)
    elif failed > spec["backoffLimit"]:
        for pod in pods:
            delete(store, ("pods", metadata["namespace"], pod["metadata"]["name"]))
        _end(store, job, "Failed", succeeded=0, failed=failed)
    elif not [pod for pod in pods if pod["status"].get("phase") != "Failed" and not is_leaving(pod)]:
        name = f"{metadata['name']}-{podmaking.suffix()}"
        labels = {"job-name": metadata["name"], "batch.kubernetes.io/job-name": metadata["name"]}
        maker.make(job, name, labels, {})


def _restarts(pod: Object) -> int:
    return sum(one.get("restartCount", 0) for one in pod["status"].get("containerStatuses", ()))


def _end(store: Store, job: Object, how: str, *, succeeded: int, failed: int) -> None:
    def tell(value: Object) -> None:
        value["status"] = {
            "completionTime": now(), "succeeded": succeeded, "failed": failed,
            "conditions": [{"type": how, "status": "True", "lastTransitionTime": now()}],
        }  # fmt: skip

    store.change(("jobs", job["metadata"]["namespace"], job["metadata"]["name"]), tell)
