"""The token of a pod's account, mounted as the API server's admission has it."""

from __future__ import annotations

from tests.rehearsal.control.store import Object, Store

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def with_account(store: Store, pod: Object) -> None:
    """Mount the account's token where it is to be mounted (the pod's word goes before the account's)."""
    spec = pod["spec"]
    account = store.find("serviceaccounts", pod["metadata"]["namespace"], spec["serviceAccountName"]) or {}
    if not spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)):
        return
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    spec["volumes"].append({"name": "kube-api-access", "projected": {"sources": sources}})
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        mounts = container.setdefault("volumeMounts", [])
        mounts.append({"name": "kube-api-access", "mountPath": _ACCOUNT, "readOnly": True})
