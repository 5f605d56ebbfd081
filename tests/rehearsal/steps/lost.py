"""What is lost and comes back: processes, pods, a node, a volume."""

from __future__ import annotations

import time
import urllib.request

from tests.rehearsal.door import eventually
from tests.rehearsal.scene import ELECTION, ORDER, Broken, Scene
from tests.rehearsal.terminal import CommandFailed


def each_kind_lost_of_one(scene: Scene) -> str | None:
    """With one replica there is a gap, and afterwards everything is as before (seal: people unseal)."""
    spent = []
    for kind in ORDER:
        for how in ("killed", "deleted"):
            begun = time.monotonic()
            lose(scene, kind, how)
            if kind == "seal":
                eventually(30, lambda: _unseal(scene), "unsealing")
            scene.require_secret(60)
            spent.append(f"{kind} {time.monotonic() - begun:.0f} s")
    return ", ".join(spent[1::2])


def each_kind_lost(scene: Scene) -> str | None:
    """Of three: no request fails; while etcd elects a leader, 503 is documented."""
    remarks = []
    for kind in ORDER:
        for how in ("killed", "deleted"):
            begun = time.time()
            lose(scene, kind, how)
            if kind == "seal":
                scene.require_unsealed(scene.count)
            try:
                remarks.append(f"{kind} {how}: {scene.judged(begun, ELECTION if kind == 'etcd' else ())}")
            except Broken as broken:
                raise Broken(f"{kind} {how}: {broken}") from None
            time.sleep(5.0)
    return "; ".join(remarks)


def lose(scene: Scene, kind: str, how: str) -> None:
    """Kill a pod's processes, or delete it; until the workload is whole again. Of etcd the leader."""
    pod = _leader(scene) if kind == "etcd" else scene.stage.pods(kind)[0]["metadata"]["name"]
    before = scene.restarts()[pod]
    address = scene.address(pod)
    if how == "killed":
        scene.kill(pod)
        eventually(60, lambda: scene.restarts().get(pod, 0) > before, f"restart of {pod}")
    else:
        scene.kubectl(f"delete pod {pod}")
    scene.settled(kind)
    if how == "deleted" and scene.address(pod) == address:
        raise Broken(f"{pod} has come back with the same address: nothing was tried")


def _unseal(scene: Scene) -> bool:
    scene.unseal()
    return True


def _leader(scene: Scene) -> str:
    """The pod of etcd's leader, by its metrics."""
    for pod in scene.stage.pods("etcd"):
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:2381/metrics", timeout=5) as page:
            if b"\netcd_server_is_leader 1\n" in page.read():
                return str(pod["metadata"]["name"])
    raise Broken("no member of etcd says that it leads")


def drained(scene: Scene) -> str | None:
    """A node is emptied within the budgets; another is not while the first is away."""
    begun = time.time()
    drain = "kubectl drain {} --delete-emptydir-data --ignore-daemonsets --timeout={}"
    scene.stage.shell(drain.format("node-1", "5m"), 320)
    pods = scene.stage.store.list("pods")
    left = [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == "node-1"]
    if left:
        raise Broken(f"still on the node: {left}")
    try:
        scene.stage.shell(drain.format("node-2", "10s"), 60)
    except CommandFailed as failed:
        if "disruption budget" not in failed.said:
            raise
    else:
        raise Broken("a second node could be drained: etcd, seal and audit had one replica left")
    scene.stage.shell("kubectl uncordon node-1 node-2", 30)
    for kind in ORDER:
        scene.settled(kind)
    scene.require_unsealed(scene.count)
    return f"{time.time() - begun:.0f} s; {scene.judged(begun, ELECTION)}"


def a_volume_lost(scene: Scene) -> str | None:
    """The node of an audit pod never comes back: its claim is deleted, and it copies its history."""
    begun = time.time()
    pod = "strongbox-audit-1"
    claim = scene.page.take("delete pvc").replace("data-strongbox-audit-N", f"data-{pod}")
    scene.stage.shell(claim, 30)
    scene.stage.lose_volume(f"data-{pod}")
    scene.kubectl(f"delete pod {pod}")
    scene.settled("audit")
    return scene.judged(begun)
