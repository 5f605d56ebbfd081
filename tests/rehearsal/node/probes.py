"""Probes as the kubelet makes them: each in its own time, thresholds counted, none before it has started."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.rehearsal.control.store import Object
from tests.rehearsal.unknown import NotRehearsed

_HTTP = ("http", "https")


def probe(spec: Object, address: str, ports: dict[str, int]) -> str:
    """Ask once; "" is yes, else why not. Raises NotRehearsed for a kind that is not known here."""
    seconds = spec.get("timeoutSeconds", 1)
    try:
        if "grpc" in spec:
            return _grpc(f"{address}:{spec['grpc']['port']}", spec["grpc"].get("service", ""), seconds)
        if "tcpSocket" in spec:
            socket.create_connection((address, _port(spec["tcpSocket"], ports)), seconds).close()
            return ""
        if "httpGet" in spec:
            return _http(spec["httpGet"], address, ports, seconds)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    raise NotRehearsed(f"probes with {sorted(spec)} are not rehearsed")


def _port(spec: Object, ports: dict[str, int]) -> int:
    return spec["port"] if isinstance(spec["port"], int) else ports[spec["port"]]


def _grpc(target: str, service: str, seconds: float) -> str:
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError as error:
            return str(error.code())
    return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else f"status {answer.status}"


def _http(spec: Object, address: str, ports: dict[str, int], seconds: float) -> str:
    if spec.get("scheme", "HTTP") != "HTTP":
        raise NotRehearsed("probes over HTTPS are not rehearsed")
    link = http.client.HTTPConnection(address, _port(spec, ports), timeout=seconds)
    try:
        link.request("GET", spec.get("path", "/"))
        status = link.getresponse().status
    finally:
        link.close()
    return "" if 200 <= status < 400 else f"HTTP {status}"


class Probing:
    """The three probes of one container while one process of it runs.

    `started`, `ready` are what they say now; `dead` says why the container is to be restarted.
    """

    def __init__(self, container: Object, address: str, changed: Callable[[], None]) -> None:
        self._container, self._address, self._changed = container, address, changed
        self._ports = {p["name"]: p["containerPort"] for p in container.get("ports", ()) if "name" in p}
        self._ended = threading.Event()
        self.started = "startupProbe" not in container
        self.ready = False
        self.dead = ""
        self.why = ""  # the last answer that was no yes
        threading.Thread(target=self._run, name=f"probes of {container['name']}", daemon=True).start()

    def end(self) -> None:
        """No further probes; not ready."""
        self._ended.set()
        self.ready = False

    def _run(self) -> None:
        if not self.started:
            self._each(self._container["startupProbe"], self._startup)
        for name, heard in (("livenessProbe", self._liveness), ("readinessProbe", self._readiness)):
            if name in self._container:
                asking = threading.Thread(
                    target=self._each, args=(self._container[name], heard), name=name, daemon=True
                )
                asking.start()
        if "readinessProbe" not in self._container and self.started:
            self.ready = True
            self._changed()

    def _each(self, spec: Object, heard: Callable[[bool, bool], bool]) -> None:
        """Ask until `heard(yes, no)` (enough of the one, of the other) has heard enough."""
        good = bad = 0
        if self._ended.wait(spec.get("initialDelaySeconds", 0)):
            return
        while not self._ended.is_set():
            begun = time.monotonic()
            why = probe(spec, self._address, self._ports)
            good, bad = (good + 1, 0) if not why else (0, bad + 1)
            self.why = why or self.why
            enough = good >= spec.get("successThreshold", 1)
            if self._ended.is_set() or heard(enough, bad >= spec.get("failureThreshold", 3)):
                return
            self._ended.wait(max(0.0, spec.get("periodSeconds", 10) - (time.monotonic() - begun)))

    def _startup(self, yes: bool, no: bool) -> bool:
        self.started = self.started or yes
        if no:
            self.dead = f"startup: {self.why}"
        return yes or no

    def _liveness(self, _: bool, no: bool) -> bool:
        if no:
            self.dead = f"liveness: {self.why}"
        return no

    def _readiness(self, yes: bool, no: bool) -> bool:
        if (yes and not self.ready) or (no and self.ready):
            self.ready = yes
            self._changed()
        return False
