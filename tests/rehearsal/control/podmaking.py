"""Pods as their controllers make them."""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import json
import secrets
from typing import Any

from tests.rehearsal.control import rules
from tests.rehearsal.control.deleting import condition, is_ready
from tests.rehearsal.control.store import Object, Refusal, Store

REVISION = "controller-revision-hash"
TEMPLATE = "pod-template-hash"


def revision(template: Object) -> str:
    """The same for the same template only."""
    return hashlib.sha256(json.dumps(_said(template), sort_keys=True).encode()).hexdigest()[:10]


def _said(value: Any) -> Any:
    """Without what is empty: kubectl writes `creationTimestamp: null`, `resources: {}` and the like."""
    if isinstance(value, dict):
        found = {name: _said(one) for name, one in value.items()}
        return {name: one for name, one in found.items() if one not in (None, {}, [])}
    return [_said(one) for one in value] if isinstance(value, list) else value


def owned(store: Store, owner: Object) -> list[Object]:
    """The owner's pods, oldest first."""
    uid = owner["metadata"]["uid"]
    found = [
        pod
        for pod in store.list("pods", owner["metadata"]["namespace"])
        if any(one["uid"] == uid for one in pod["metadata"].get("ownerReferences", ()))
    ]
    return sorted(found, key=lambda pod: int(pod["metadata"]["labels"].get("rehearsal/number", 0)))


def is_leaving(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_available(pod: Object, seconds: float) -> bool:
    """Ready, and for so long."""
    if not is_ready(pod) or is_leaving(pod):
        return False
    since = dt.datetime.fromisoformat(condition(pod, "Ready")["since"])
    return (dt.datetime.now(dt.UTC) - since).total_seconds() >= seconds


class PodMaker:
    """Makes pods, each with a number of its own, and remembers what was refused."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made = 0
        self.refused: dict[str, str] = {}

    def make(self, owner: Object, name: str, labels: dict[str, str], more: Object) -> bool:
        """False: it was refused."""
        template = copy.deepcopy(owner["spec"]["template"])
        self._made += 1
        metadata = owner["metadata"]
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "annotations": template["metadata"].get("annotations", {}),
                "labels": {
                    **template["metadata"].get("labels", {}), **labels, "rehearsal/number": str(self._made)
                },
                "ownerReferences": [
                    {
                        "apiVersion": owner["apiVersion"], "kind": _controller(owner["kind"]),
                        "name": metadata["name"], "uid": metadata["uid"], "controller": True,
                    }
                ],
            },
            "spec": template["spec"] | more,
            "status": {"phase": "Pending", "conditions": []},
        }  # fmt: skip
        pod["spec"].setdefault("volumes", [])
        pod["spec"].setdefault("terminationGracePeriodSeconds", 30)
        try:
            self._admit(pod)
            self._store.create("pods", pod)
        except Refusal as refusal:
            self.refused[name] = str(refusal)
            return False
        return True

    def _admit(self, pod: Object) -> None:
        namespace = self._store.get("namespaces", "", pod["metadata"]["namespace"])
        labels = namespace["metadata"].get("labels", {})
        if labels.get("pod-security.kubernetes.io/enforce") == "restricted":
            rules.check_restricted(pod)
        account = pod["spec"].setdefault("serviceAccountName", "default")
        self._store.get("serviceaccounts", pod["metadata"]["namespace"], account)


def _controller(kind: str) -> str:
    # A Deployment's pods are a ReplicaSet's; nobody here asks for that itself.
    return "ReplicaSet" if kind == "Deployment" else kind


def suffix() -> str:
    return secrets.token_hex(3)[:5]
