"""Runs the controllers and the scheduler, whenever something changes and a few times a second."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable

from tests.rehearsal.control import certmanager, podmaking
from tests.rehearsal.control.deployments import reconcile_autoscaler, reconcile_deployment
from tests.rehearsal.control.jobs import reconcile_job
from tests.rehearsal.control.statefulsets import reconcile_stateful_set
from tests.rehearsal.control.store import Object, Refusal, Store

_PAUSE, _LONGEST = 0.1, 0.5  # seconds between two looks: at least, and when nothing changes


class Controllers:
    """All controllers in one thread. `problems` are defects of the rehearsal itself, and end it."""

    def __init__(self, store: Store, authority: str) -> None:
        self._store, self._authority = store, authority
        self._maker = podmaking.PodMaker(store)
        self.problems: list[str] = []

    @property
    def refused(self) -> dict[str, str]:
        """Pods that were not admitted, and why."""
        return self._maker.refused

    def start(self) -> None:
        threading.Thread(target=self._run, name="controllers", daemon=True).start()

    def _run(self) -> None:
        version = 0
        while True:
            version = self._store.news(version, _LONGEST)
            for plural, reconcile in (
                ("namespaces", self._default_account),
                ("horizontalpodautoscalers", lambda one: reconcile_autoscaler(self._store, one)),
                ("jobs", lambda one: reconcile_job(self._store, self._maker, one)),
                ("deployments", lambda one: reconcile_deployment(self._store, self._maker, one)),
                ("statefulsets", lambda one: reconcile_stateful_set(self._store, self._maker, one)),
                ("certificates", lambda one: certmanager.reconcile(self._store, one)),
                ("pods", self._schedule),
            ):
                for value in self._store.list(plural):
                    self._one(reconcile, value)
            time.sleep(_PAUSE)

    def _one(self, reconcile: Callable[[Object], None], value: Object) -> None:
        try:
            reconcile(value)
        except Refusal as refusal:
            if refusal.code not in (404, 409):  # else it changed meanwhile: the next look sees it
                self.problems.append(f"{value['metadata']['name']}: {refusal}")
        except Exception:
            self.problems.append(traceback.format_exc())

    def _default_account(self, namespace: Object) -> None:
        """And whom its pods trust when they speak to the API server."""
        name = namespace["metadata"]["name"]
        if self._store.find("serviceaccounts", name, "default") is None:
            account = {"apiVersion": "v1", "kind": "ServiceAccount"}
            self._store.create(
                "serviceaccounts", account | {"metadata": {"name": "default", "namespace": name}}
            )
            trusted = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": self._authority}}
            place = {"name": "kube-root-ca.crt", "namespace": name}
            self._store.create("configmaps", trusted | {"metadata": place})

    def _schedule(self, pod: Object) -> None:
        """To the node with the fewest pods that required anti-affinity and cordons leave."""
        if pod["spec"].get("nodeName"):
            return
        others = [one for one in self._store.list("pods") if one["spec"].get("nodeName")]
        crowded = Counter(one["spec"]["nodeName"] for one in others)
        shunned = {one["spec"]["nodeName"] for one in others if _shuns(pod, one)}
        fit = [
            node["metadata"]["name"]
            for node in self._store.list("nodes")
            if not node["spec"].get("unschedulable") and node["metadata"]["name"] not in shunned
        ]
        if not fit:
            return
        chosen = min(fit, key=lambda name: (crowded[name], name))
        metadata = pod["metadata"]
        self._store.change(
            ("pods", metadata["namespace"], metadata["name"]),
            lambda value: value["spec"].update(nodeName=chosen),
        )


def _shuns(pod: Object, other: Object) -> bool:
    rules = pod["spec"].get("affinity", {}).get("podAntiAffinity", {})
    labels = other["metadata"].get("labels", {})
    return any(
        rule["labelSelector"]["matchLabels"].items() <= labels.items()
        for rule in rules.get("requiredDuringSchedulingIgnoredDuringExecution", ())
    )
