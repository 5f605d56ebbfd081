"""The kubelet: runs every pod that the scheduler has given a node, and says in its status how it is."""

from __future__ import annotations

import datetime as dt
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tests.rehearsal.control.deleting import condition
from tests.rehearsal.control.store import Object, Store
from tests.rehearsal.control.tokens import Tokens
from tests.rehearsal.node.account import with_account
from tests.rehearsal.node.container import Process, Surroundings
from tests.rehearsal.node.etcd35 import for_this_etcd
from tests.rehearsal.node.images import Images
from tests.rehearsal.node.network import Network
from tests.rehearsal.node.probes import Probing
from tests.rehearsal.node.volumes import NotThere, Volumes
from tests.rehearsal.unknown import NotRehearsed

SYNC = 2.0  # seconds from one look at a pod's volumes to the next; a real kubelet's is about a minute
_TICK = 0.05
_BACK_OFF, _BACK_OFF_CAP = 10.0, 300.0  # seconds before a container that ends again and again is restarted


class Kubelet:
    """All nodes' in one. `killed` are pods that had to be killed after their grace; `problems`, our own."""

    def __init__(
        self, store: Store, tokens: Tokens, network: Network, images: Images, place: Path, logs: Path
    ) -> None:
        self.store, self.tokens, self.network, self.images = store, tokens, network, images
        self.place, self.logs = place, logs
        self.killed: list[str] = []
        self.problems: list[str] = []
        self.processes: dict[tuple[str, str], Process] = {}  # by pod and container

    def start(self) -> None:
        threading.Thread(target=self._run, name="kubelet", daemon=True).start()

    def _run(self) -> None:
        running: set[str] = set()
        version = 0
        while True:
            version = self.store.news(version, 1.0)
            for pod in self.store.list("pods"):
                uid = pod["metadata"]["uid"]
                if pod["spec"].get("nodeName") and uid not in running:
                    running.add(uid)
                    name = pod["metadata"]["name"]
                    threading.Thread(target=self._pod, args=(pod,), name=name, daemon=True).start()
            time.sleep(_TICK)

    def _pod(self, pod: Object) -> None:
        try:
            PodRun(self, pod).run()
        except Exception:
            self.problems.append(f"{pod['metadata']['name']}: {traceback.format_exc()}")


class PodRun:
    """One pod from its volumes to its end."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        self._kubelet, self._pod = kubelet, pod
        metadata = pod["metadata"]
        self._name, self._uid = metadata["name"], metadata["uid"]
        self._key = ("pods", metadata["namespace"], metadata["name"])
        self._network = f"{self._name[:40]}-{self._uid[:8]}"
        self._place = kubelet.place / "pods" / self._uid
        self._states: dict[str, dict[str, Any]] = {}
        self._telling = threading.RLock()  # containers and probes tell at the same time
        self._status: dict[str, Any] = {"phase": "Pending"}
        with_account(kubelet.store, pod)
        self._volumes = Volumes(
            kubelet.store, kubelet.tokens, pod, self._place / "volumes", kubelet.place / "claims"
        )

    def run(self) -> None:
        """Until it is removed."""
        try:
            folders = self._wait_for_volumes()
            if folders is None:
                return
            address = self._kubelet.network.join(self._network)
            self._status = {"phase": "Pending", "podIP": address}
            self._around = Surroundings(
                self._kubelet.store, self._pod, address, self._network, folders, self._place,
                self._kubelet.logs,
            )  # fmt: skip
            self._tell()
            threading.Thread(target=self._refresh, name=f"volumes of {self._name}", daemon=True).start()
            if self._initialise():
                self._status["phase"] = "Running"
                threads = [
                    threading.Thread(target=self._contain, args=(one,), name=self._name, daemon=True)
                    for one in self._pod["spec"]["containers"]
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            self._wait_for_end()
        finally:
            self._kubelet.network.leave(self._network)
            self._kubelet.store.remove(*self._key)

    def _leaving(self) -> float | None:
        """The grace in seconds once it is to go; 0 also when it is gone from the store."""
        with self._kubelet.store.changed:  # no copy: this is asked often
            found = self._kubelet.store.objects.get(self._key)
            if found is None or found["metadata"]["uid"] != self._uid:
                return 0.0
            if "deletionTimestamp" not in found["metadata"]:
                return None
            return float(found["metadata"]["deletionGracePeriodSeconds"])

    def _wait_for_volumes(self) -> dict[str, Path] | None:
        while self._leaving() is None:
            try:
                return self._volumes.mount()
            except NotThere as missing:
                self._status["message"] = f"FailedMount: {missing}"
                self._tell()
                time.sleep(1.0)
        return None

    def _refresh(self) -> None:
        while self._leaving() is None:
            time.sleep(SYNC)
            try:
                self._volumes.refresh()
            except NotThere:
                pass

    def _initialise(self) -> bool:
        """Run the init containers, each until it has succeeded; False: the pod is to go before."""
        for container in self._pod["spec"].get("initContainers", ()):
            if container.get("restartPolicy"):
                raise NotRehearsed("sidecars are not rehearsed")
            wait = _BACK_OFF
            while True:
                process = self._start(container)
                if process is None:
                    return False
                while process.poll() is None:
                    if self._leaving() is not None:
                        process.end(2.0)
                        return False
                    time.sleep(_TICK)
                if process.poll() == 0:
                    break
                self._state(container, restarted=True, exited=process.poll())
                if not self._sleep(wait):
                    return False
                wait = min(2 * wait, _BACK_OFF_CAP)
        return True

    def _contain(self, container: Object) -> None:
        wait = _BACK_OFF
        while True:
            begun = time.monotonic()
            process = self._start(container)
            if process is None:
                return
            self._kubelet.processes[self._name, container["name"]] = process
            probing = Probing(container, self._around.address, lambda: self._state(container))
            self._state(container, probing=probing)
            self._watch(container, process, probing)
            if self._leaving() is not None:
                return
            code = process.poll()
            policy = self._pod["spec"].get("restartPolicy", "Always")
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                self._status["phase"] = "Succeeded" if code == 0 else "Failed"
                self._state(container, exited=code)
                return
            self._state(container, restarted=True, exited=code)
            if time.monotonic() - begun > 600:
                wait = _BACK_OFF
            # The first restart comes at once, as the kubelet's does.
            if self._states[container["name"]]["restartCount"] > 1:
                if not self._sleep(wait):
                    return
                wait = min(2 * wait, _BACK_OFF_CAP)

    def _watch(self, container: Object, process: Process, probing: Probing) -> None:
        """Until the process has ended, by itself or because it is to."""
        grace = float(self._pod["spec"]["terminationGracePeriodSeconds"])
        while process.poll() is None:
            leaving = self._leaving()
            if leaving is not None:
                if not self._end(container, process, leaving):
                    self._kubelet.killed.append(f"{self._name}: killed after its grace of {leaving:.0f} s")
                break
            if probing.dead:
                self._kubelet.killed.append(f"{self._name}: {probing.dead}")
                process.end(grace)
                break
            time.sleep(_TICK)
        probing.end()
        self._state(container)

    def _end(self, container: Object, process: Process, grace: float) -> bool:
        if grace == 0:
            process.end(0.0)
            return True
        ends = time.monotonic() + grace
        before = container.get("lifecycle", {}).get("preStop", {})
        if before and "sleep" not in before:
            raise NotRehearsed(f"preStop {sorted(before)} is not rehearsed")
        asleep = time.monotonic() + min(grace, before.get("sleep", {}).get("seconds", 0))
        while time.monotonic() < asleep and process.poll() is None:
            time.sleep(_TICK)
        return process.end(max(2.0, ends - time.monotonic()))

    def _start(self, container: Object) -> Process | None:
        """As soon as its image and settings are there; None: the pod is to go before."""
        while True:
            try:
                image = self._kubelet.images.get(container["image"])
                self._status.pop("message", None)
                return Process(self._around, for_this_etcd(container), image)
            except (NotThere, LookupError) as missing:
                self._status["message"] = str(missing)
                self._tell()
                if not self._sleep(1.0):
                    return None

    def _sleep(self, seconds: float) -> bool:
        """False: it is to go."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self._leaving() is not None:
                return False
            time.sleep(_TICK)
        return True

    def _wait_for_end(self) -> None:
        while self._leaving() is None:
            time.sleep(_TICK)

    def _state(
        self,
        container: Object,
        *,
        probing: Probing | None = None,
        restarted: bool = False,
        exited: int | None = None,
    ) -> None:
        with self._telling:
            state = self._states.setdefault(container["name"], {"name": container["name"], "restartCount": 0})
            if probing is not None:
                state["probing"] = probing
            known = state.get("probing")
            state["restartCount"] += restarted
            state["ready"] = bool(known and known.ready and exited is None)
            state["started"] = bool(known and known.started)
            if exited is not None:
                state["lastState"] = {"terminated": {"exitCode": exited}}
            self._tell()

    def _tell(self) -> None:
        with self._telling:
            self._tell_alone()

    def _tell_alone(self) -> None:
        wanted = {one["name"] for one in self._pod["spec"]["containers"]}
        states = [one for name, one in self._states.items() if name in wanted]
        ready = len(states) == len(wanted) and all(one["ready"] for one in states)

        def tell(pod: Object) -> None:
            if pod["metadata"]["uid"] != self._uid:
                return
            told = "True" if ready else "False"
            known = condition(pod, "Ready")
            since = known.get("since") if known.get("status") == told else None
            since = since or dt.datetime.now(dt.UTC).isoformat()
            shown = [{k: v for k, v in one.items() if k != "probing"} for one in states]
            conditions = [
                {"type": "Ready", "status": told, "since": since},
                {"type": "ContainersReady", "status": told},
                {"type": "PodScheduled", "status": "True"},
            ]
            pod["status"] = {**self._status, "conditions": conditions, "containerStatuses": shown}

        self._kubelet.store.change(self._key, tell)
