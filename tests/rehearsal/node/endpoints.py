"""Which pods stand behind which Service, as clients are told: a moment after it has changed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests.rehearsal.control.deleting import is_ready
from tests.rehearsal.control.store import Object, Store

# Seconds until a change has reached DNS and the nodes; a pod is told to end at once all the same.
PROPAGATION = 0.5


@dataclass(frozen=True)
class Backend:
    """A pod of a Service: its host name (if it has one there), its address, its ports by name."""

    hostname: str
    address: str
    ports: dict[str, int] = field(hash=False)


@dataclass
class View:
    """The Services and their backends as they were PROPAGATION seconds ago."""

    services: dict[tuple[str, str], Object] = field(default_factory=dict)
    backends: dict[tuple[str, str], list[Backend]] = field(default_factory=dict)


class Endpoints:
    """Follows the store; `view` is what DNS and the proxies go by."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.view = View()
        threading.Thread(target=self._run, name="endpoints", daemon=True).start()

    def _run(self) -> None:
        waiting: list[tuple[float, View]] = []
        last, version = View(), 0
        while True:
            known, version = version, self._store.news(version, 0.1)
            found = self._look() if version != known else last
            if found != last:
                last = found
                waiting.append((time.monotonic() + PROPAGATION, found))
            while waiting and waiting[0][0] <= time.monotonic():
                self.view = waiting.pop(0)[1]
            time.sleep(0.05)

    def _look(self) -> View:
        pods = self._store.list("pods")
        services, backends = {}, {}
        for service in self._store.list("services"):
            metadata = service["metadata"]
            key = (metadata["namespace"], metadata["name"])
            services[key] = {"metadata": {"name": metadata["name"]}, "spec": service["spec"]}
            backends[key] = [_backend(pod, service) for pod in pods if _stands_behind(pod, service)]
        return View(services, backends)


def _stands_behind(pod: Object, service: Object) -> bool:
    """With `publishNotReadyAddresses` also before it is ready, and while it ends."""
    selector = service["spec"].get("selector")
    metadata, status = pod["metadata"], pod["status"]
    if not selector or metadata["namespace"] != service["metadata"]["namespace"]:
        return False
    if not selector.items() <= metadata.get("labels", {}).items() or not status.get("podIP"):
        return False
    if status.get("phase") in ("Succeeded", "Failed"):
        return False
    if service["spec"].get("publishNotReadyAddresses"):
        return True
    return is_ready(pod) and "deletionTimestamp" not in metadata


def _backend(pod: Object, service: Object) -> Backend:
    spec = pod["spec"]
    named = spec.get("hostname", "") if spec.get("subdomain") == service["metadata"]["name"] else ""
    ports = {
        port["name"]: port["containerPort"]
        for container in spec["containers"]
        for port in container.get("ports", ())
        if "name" in port
    }
    return Backend(named, pod["status"]["podIP"], ports)
