"""As much of a Kubernetes API server as `kubectl apply -k` and `kubectl delete -k` speak to: no pods.

It keeps objects. What it has of the real one: discovery, namespaces (an object of one that is not there is
refused, and goes with it), 404 and 409, patches, those defaults that `kubectl apply` stumbles over, and that
the template of a Job is not changed.
"""

from __future__ import annotations

import copy
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs

Object = dict[str, Any]
PLURALS = {
    "v1": {
        "Namespace": "namespaces", "ConfigMap": "configmaps", "Secret": "secrets", "Service": "services",
        "ServiceAccount": "serviceaccounts", "PersistentVolumeClaim": "persistentvolumeclaims",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
    "batch/v1": {"Job": "jobs", "CronJob": "cronjobs"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "rbac.authorization.k8s.io/v1": {
        "Role": "roles", "RoleBinding": "rolebindings", "ClusterRoleBinding": "clusterrolebindings",
    },
    "cert-manager.io/v1": {"Issuer": "issuers", "Certificate": "certificates"},
}  # fmt: skip
_BY_NAME = {"containers", "initContainers", "env", "volumes"}
_SHORT = {"PersistentVolumeClaim": ["pvc"]}
OF_THE_CLUSTER = {"Namespace", "ClusterRoleBinding"}


class Place(NamedTuple):
    """Where an object is; `namespace` "" for what has none."""

    version: str
    plural: str
    namespace: str
    name: str


class KubeApi:
    """Listens on 127.0.0.1; a context manager. `objects` is all that there is."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[Place, Object] = {}
        self._folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubectl(self, program: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """The real kubectl, against this server."""
        where = [
            "--server",
            self.url,
            "--kubeconfig",
            "/dev/null",
            "--cache-dir",
            str(self._folder / "cache"),
        ]
        command = [str(program), *where, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def put(self, kind: str, name: str, namespace: str, **metadata: Any) -> None:
        """An object of version v1 that somebody else has made."""
        metadata |= {"name": name, "namespace": namespace, "uid": f"{kind}-{name}"}
        place = Place("v1", PLURALS["v1"][kind], namespace, name)
        self.objects[place] = {"apiVersion": "v1", "kind": kind, "metadata": metadata}

    def names(self, kind: str) -> set[str]:
        """Of all objects of a kind."""
        return {one["metadata"]["name"] for one in self.objects.values() if one["kind"] == kind}

    def answer(self, method: str, target: str, body: Object) -> tuple[int, Object]:
        """Status code and answer of one request."""
        path, _, query = target.partition("?")
        found = _discovery(path)
        if found is not None:
            return 200, found
        place = _place(path)
        if place is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        if method == "GET" and not place.name:
            return 200, self._list(place, parse_qs(query))
        known = self.objects.get(place)
        before = copy.deepcopy(self.objects)
        try:
            return self._change(method, place, known, body)
        finally:
            if "dryRun" in query:
                self.objects = before

    def _change(self, method: str, place: Place, known: Object | None, body: Object) -> tuple[int, Object]:
        if method == "POST":
            return self._create(place._replace(name=body["metadata"]["name"]), body)
        if known is None:
            return _status(404, "NotFound", f'{place.plural} "{place.name}" not found')
        if method == "PATCH":
            return self._patch(place, known, body)
        if method == "DELETE":
            del self.objects[place]
            if known["kind"] == "Namespace":
                self.objects = {at: one for at, one in self.objects.items() if at.namespace != place.name}
        return 200, known

    def _list(self, place: Place, asked: dict[str, list[str]]) -> Object:
        """All of a kind in a namespace; by name and by labels' values, if that is asked."""
        name = "".join(asked.get("fieldSelector", [])).removeprefix("metadata.name=")
        wanted = dict(one.split("=") for one in "".join(asked.get("labelSelector", [])).split(",") if one)
        found = [
            one
            for at, one in self.objects.items()
            if at._replace(name="") == place
            and name in ("", at.name)
            and wanted.items() <= one["metadata"].get("labels", {}).items()
        ]
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": found}

    def _create(self, place: Place, body: Object) -> tuple[int, Object]:
        if place in self.objects:
            return _status(409, "AlreadyExists", f'{place.plural} "{place.name}" already exists')
        if place.namespace and Place("v1", "namespaces", "", place.namespace) not in self.objects:
            return _status(404, "NotFound", f'namespaces "{place.namespace}" not found')
        body["metadata"]["uid"] = f"{place.plural}-{place.name}"
        self.objects[place] = _with_defaults(body)
        return 201, body

    def _patch(self, place: Place, known: Object, patch: Object) -> tuple[int, Object]:
        if known["kind"] == "Job" and "template" in patch.get("spec", {}):
            return _status(
                422, "Invalid", f'Job "{place.name}" is invalid: spec.template: field is immutable'
            )
        self.objects[place] = _with_defaults(_merged(known, patch))
        return 200, self.objects[place]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _with_defaults(one: Object) -> Object:
    """What the real one adds within lists and maps that a patch replaces as a whole."""
    spec = one.get("spec", {})
    if one["kind"] == "NetworkPolicy":
        for direction in ("ingress", "egress"):
            if not spec.get(direction):
                spec.pop(direction, None)
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            for port in rule.get("ports", ()):
                port.setdefault("protocol", "TCP")
    one["metadata"].setdefault("generation", 1)
    if one["kind"] == "Deployment":
        spec.setdefault("strategy", {}).setdefault("type", "RollingUpdate")
    for claim in spec.get("volumeClaimTemplates", ()):
        claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}
        claim["spec"].setdefault("volumeMode", "Filesystem")
    return one


def _place(path: str) -> Place | None:
    """`/api/v1/namespaces/NS/PLURAL/NAME` and the like; None for what is none of these."""
    parts = path.strip("/").split("/")
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return None
    version, rest = (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace = ""
    if not rest:
        return None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return Place(version, rest[0], namespace, rest[1] if len(rest) > 1 else "")


def _discovery(path: str) -> Object | None:
    """What there is to ask for; None when the path is an object's."""
    if path == "/version":
        return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    groups = [version for version in PLURALS if "/" in version]
    if path == "/apis":
        told = []
        for one in groups:
            version = {"groupVersion": one, "version": one.partition("/")[2]}
            told.append({"name": one.partition("/")[0], "versions": [version], "preferredVersion": version})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": told}
    version = path.removeprefix("/apis/") if path.startswith("/apis/") else path.removeprefix("/api/")
    if version not in PLURALS:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {"name": plural, "singularName": kind.lower(), "kind": kind, "verbs": verbs,
         "namespaced": kind not in OF_THE_CLUSTER, "shortNames": _SHORT.get(kind, [])}
        for kind, plural in PLURALS[version].items()
    ]  # fmt: skip
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


def _merged(known: Any, patch: Any) -> Any:
    """RFC 7386, and of strategic merges those lists by name that are looked at here; others are replaced."""
    if not isinstance(patch, dict) or not isinstance(known, dict):
        return patch
    done = {**known}
    for key, value in patch.items():
        if key.startswith("$setElementOrder/"):
            continue
        if value is None:
            done.pop(key, None)
        elif key in _BY_NAME and isinstance(known.get(key), list):
            done[key] = _merged_by_name(known[key], value)
        else:
            done[key] = _merged(known.get(key), value)
    return done


def _merged_by_name(known: list[Object], patch: list[Object]) -> list[Object]:
    done = {one["name"]: one for one in known}
    for one in patch:
        if one.get("$patch") == "delete":
            done.pop(one["name"], None)
        else:
            done[one["name"]] = _merged(done.get(one["name"]), one)
    return [*done.values()]


def _status(code: int, reason: str, message: str) -> tuple[int, Object]:
    told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
    return code, {**told, "code": code, "reason": reason, "message": message}


def _handler(api: KubeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes: 40 ms each time otherwise

        def do_GET(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            code, told = api.answer(self.command, self.path, json.loads(raw) if raw else {})
            body = json.dumps(told).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  the base class looks for these names

        def log_message(self, *_: object) -> None:
            pass

    return Handler
