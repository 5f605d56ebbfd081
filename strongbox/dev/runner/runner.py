"""The process that stays: starts every process of a cluster, reaps what dies, starts it again when asked.

Everything is started from its main thread: Envoy (and setpriv, for the others) ties a child's life to the
thread that started it. So when the runner dies, however it dies, nothing is left behind.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from strongbox.config import SERVICES
from strongbox.dev.layout import POSTGRES, Layout, cluster_json, write_private_json
from strongbox.dev.processes import etcd, postgres, services
from strongbox.dev.processes.children import Child, Identity, Spec, StartError, stop_all, wait_until_ready
from strongbox.dev.runner.runner_socket import Answer, Listener
from strongbox.dev.unseal import wait_until_answering

_ETCD_PATIENCE, _SERVICE_PATIENCE, _GATEWAY_PATIENCE = 30.0, 90.0, 30.0
_LONE_ETCD_PATIENCE = 5.0
# Who is stopped when, and how many seconds it has. Members of etcd that stop together wait for each other and
# for streams; they are safe against being killed, and nobody writes any more.
_STOP_ORDER = ((("envoy",), 5.0), (SERVICES, 5.0), ((POSTGRES,), 10.0), (("etcd",), 1.0))
Say = Callable[[str], None]
Key = tuple[str, str]


class Interrupted(Exception):
    """Somebody asked for the end while it was starting."""


class Runner:
    """Owns a cluster's processes. Use it in a main thread, with the folder's lock held."""

    def __init__(self, layout: Layout, say: Say) -> None:
        self._layout, self._say = layout, say
        self._children: dict[Key, Child] = {}
        self._stopping = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def start(self, nodes: list[str]) -> None:
        """Start what is not running of these nodes (and of `postgres`), and wait until it serves.

        Raises StartError (what was started stays: the caller stops it) or Interrupted.
        """
        named = [node for node in nodes if node != POSTGRES]
        early = self._launch([postgres.server(self._layout)] if POSTGRES in nodes else [])
        members = self._launch(etcd.member(self._layout, node) for node in named)
        # They listen without etcd, and importing is what takes long: side by side with etcd's election.
        early += self._launch(services.service(self._layout, n, s) for s in SERVICES for n in named)
        self._await_etcd(members, named)
        if len(named) == self._layout.nodes:
            etcd.ensure_users(self._layout)
        self._await(early, _SERVICE_PATIENCE)
        self._await(self._launch(services.gateway(self._layout, n) for n in named), _GATEWAY_PATIENCE)
        for node in named:
            wait_until_answering(self._layout.gateway_url(node), _GATEWAY_PATIENCE, self._is_stopping)
        self._check()

    def watch(self) -> None:
        """Until a signal: reap what dies, answer what is asked."""
        listener = Listener(self._layout.folder)
        try:
            while not self._stopping:
                self._reap()
                listener.serve(self._answer, patience=0.1)
        finally:
            listener.close()

    def stop(self) -> None:
        """Stop everything: gateways, services, etcd and PostgreSQL; leaves none."""
        living = [child for child in self._children.values() if child.status is None]
        for names, patience in _STOP_ORDER:
            group = [child for child in living if child.spec.name in names]
            stop_all([[(child.identity, child.spec.stop_signal) for child in group]], patience)
        for child in living:
            child.wait()
        self._write_state()

    def _await_etcd(self, members: list[Child], nodes: list[str]) -> None:
        if len(nodes) == self._layout.nodes:
            self._await(members, _ETCD_PATIENCE)
            return
        try:  # without the others there may be no quorum; the services say so themselves
            self._await(members, _LONE_ETCD_PATIENCE)
        except StartError as error:
            self._say(str(error))

    def _launch(self, specs: Iterable[Spec]) -> list[Child]:
        """Start those that do not run; returns the new ones."""
        self._check()
        started = []
        for spec in specs:
            known = self._children.get((spec.node, spec.name))
            if known is None or known.has_ended():
                started.append(Child(spec))
                self._children[spec.node, spec.name] = started[-1]
        self._write_state()
        return started

    def _await(self, children: list[Child], patience: float) -> None:
        wait_until_ready(children, patience, self._is_stopping)
        self._check()

    def _answer(self, request: Answer) -> Answer:
        """`{"start": [node…]}` starts what is dead there; `{"start_one": [node, name]}` one process."""
        try:
            if "start" in request:
                self.start([str(node) for node in request["start"]])
            elif "start_one" in request:
                self._start_one(*request["start_one"])
            else:
                return {"error": "the runner does not know this request"}
        except (StartError, Interrupted, LookupError, TypeError) as error:
            return {"error": str(error)}
        return {"ok": True}

    def _start_one(self, node: str, name: str) -> None:
        if name == POSTGRES:
            spec = postgres.server(self._layout)
        elif name == "etcd":
            spec = etcd.member(self._layout, node)
        elif name == "envoy":
            spec = services.gateway(self._layout, node)
        else:
            spec = services.service(self._layout, node, name)
        self._await(self._launch([spec]), _SERVICE_PATIENCE)

    def _reap(self) -> None:
        for key, child in self._children.items():
            if child.status is not None and not child.reported:
                child.reported = True
                self._say(f"{' '.join(key)} ended with status {child.status}")

    def _write_state(self) -> None:
        running: dict[str, list[dict[str, Any]]] = {}
        for name in (*services.PROCESSES, POSTGRES):
            for (node, each), child in self._children.items():
                if each == name:
                    running.setdefault(node, []).append(_entry(child.spec, child.identity))
        path = self._layout.folder / "cluster.json"
        write_private_json(path, cluster_json(self._layout, running))

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._stopping = True

    def _is_stopping(self) -> bool:
        return self._stopping

    def _check(self) -> None:
        if self._stopping:
            raise Interrupted("stopped while starting")


def _entry(spec: Spec, identity: Identity) -> dict[str, Any]:
    return {"name": spec.name, "pid": identity.pid, "address": spec.address, "started": identity.started}
