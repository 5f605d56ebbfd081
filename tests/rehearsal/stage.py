"""A cluster of three nodes, empty: the API server, controllers, DNS and kubelets, and a kubectl for it."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from strongbox.authority import Authority, Leaf
from tests.rehearsal.control import kinds
from tests.rehearsal.control.api import ApiServer
from tests.rehearsal.control.calls import Calls
from tests.rehearsal.control.controllers import Controllers
from tests.rehearsal.control.store import Object, Store
from tests.rehearsal.control.tokens import Tokens
from tests.rehearsal.node.dns import Dns
from tests.rehearsal.node.endpoints import Endpoints
from tests.rehearsal.node.images import ROOT, Images
from tests.rehearsal.node.kubelet import Kubelet
from tests.rehearsal.node.network import API_SERVER, Network
from tests.rehearsal.node.proxy import Proxies
from tests.rehearsal.terminal import CommandFailed

NODES = ("node-0", "node-1", "node-2")
_KUBECTL = """#!/bin/sh
# Port forwarding needs a protocol that the stand-in does not speak: that one is ours. `create KIND` would
# send protobuf; what it makes is sent as JSON instead.
created=
for word; do
    case $word in
    port-forward) PYTHONPATH={root} exec {python} -m tests.rehearsal.forward "$@" ;;
    create) created=yes ;;
    -f | token) created= ;;
    esac
done
[ -z "$created" ] || {kubectl} "$@" --dry-run=client -o json | exec {kubectl} create -f -
[ -n "$created" ] || exec {kubectl} "$@"
"""


class Stage:
    """Everything is made below `place`, which is gone with the namespaces; logs go to `logs`."""

    def __init__(self, place: Path, logs: Path, *, cert_manager: bool = False) -> None:
        _fresh(place)
        self.place, self.logs = place, logs
        logs.mkdir(parents=True, exist_ok=True)
        self.store = Store()
        self.tokens = Tokens(self.store)
        self.network = Network()
        known = kinds.KINDS + (kinds.CERT_MANAGER if cert_manager else ())
        self.endpoints = Endpoints(self.store)
        self.dns = Dns(self.endpoints)
        Proxies(self.store, self.endpoints, self.network)
        self.authority = Authority.create("the cluster's authority")
        pair = self._server_pair()
        ApiServer(Calls(self.store, self.tokens, known, logs), (API_SERVER, 443), pair)
        self.controllers = Controllers(self.store, self.authority.pair.certificate.decode())
        images = Images(place / "images")
        self.kubelet = Kubelet(self.store, self.tokens, self.network, images, place, logs)
        for name in ("default", "kube-system"):
            self.store.create("namespaces", _object("Namespace", name))
        for name in NODES:
            self.store.create("nodes", _object("Node", name) | {"spec": {}})
        self.controllers.start()
        self.kubelet.start()
        self.work = place / "work"
        shutil.copytree(ROOT / "k8s", self.work / "k8s")
        self._tools()

    @property
    def environment(self) -> dict[str, str]:
        """What a person's shell has: the tools, and a kubectl that knows the cluster."""
        return {
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith("STRONGBOX_") and "proxy" not in k.lower()
            },
            "PATH": f"{self.place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.place / "kubeconfig"),
            "HOME": str(self.place),
        }

    def problems(self) -> list[str]:
        """What the rehearsal itself did not manage: its verdict is worth nothing then."""
        return [*self.controllers.problems, *self.kubelet.problems]

    def pods(self, workload: str) -> list[Object]:
        """Those with that name's label that are not on their way out."""
        return [
            pod
            for pod in self.store.list("pods", "strongbox")
            if pod["metadata"]["labels"].get("app.kubernetes.io/name") == f"strongbox-{workload}"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def lose_volume(self, claim: str) -> None:
        """What was on it is gone, as with its node."""
        shutil.rmtree(self.place / "claims" / claim)

    def shell(self, script: str, timeout: float) -> str:
        """What a person would see of it; standard error is in it. Raises CommandFailed."""
        begun = time.monotonic()
        try:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script], cwd=self.work, env=self.environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=timeout,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            told = (late.stdout or b"").decode() if isinstance(late.stdout, bytes) else late.stdout or ""
            raise CommandFailed(script, f"not done after {timeout:.0f} s", told) from None
        if done.returncode != 0:
            after = time.monotonic() - begun
            raise CommandFailed(script, f"exit status {done.returncode} after {after:.1f} s", done.stdout)
        return done.stdout

    def _server_pair(self) -> Path:
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc",
                 "kubernetes.default.svc.cluster.local")  # fmt: skip
        pair = self.authority.issue(Leaf("kubernetes", "api", names, (API_SERVER,)), dt.timedelta(days=7))
        file = self.place / "api.pem"
        file.touch(mode=0o600)
        file.write_bytes(pair.key + pair.certificate)
        return file

    def _tools(self) -> None:
        authority = self.place / "kubernetes-ca.crt"
        authority.write_bytes(self.authority.pair.certificate)
        cluster = {"server": f"https://{API_SERVER}", "certificate-authority": str(authority)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "rehearsal", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.tokens.admin}}],
            "contexts": [{"name": "rehearsal", "context": {"cluster": "rehearsal", "user": "admin"}}],
            "current-context": "rehearsal",
        }
        (self.place / "kubeconfig").write_text(yaml.safe_dump(config))
        (self.place / "kubeconfig").chmod(0o600)
        wrapper = self.place / "bin" / "kubectl"
        wrapper.parent.mkdir()
        real = Path(sys.executable).parent / "kubectl"
        wrapper.write_text(_KUBECTL.format(root=ROOT, python=sys.executable, kubectl=real))
        wrapper.chmod(0o755)


def _fresh(place: Path) -> None:
    """/run is empty, and nobody else sees what is put there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True, timeout=10)
    place.mkdir(parents=True)


def _object(kind: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": {}}}
