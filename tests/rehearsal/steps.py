"""From an empty cluster to a first secret, and what is promised for after that: a function for each step.

Each takes the scene, returns a remark or None, and raises when something is not as it is documented.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from tests.rehearsal.door import Load, eventually
from tests.rehearsal.scene import ORDER, SECRET, Broken, Scene

Run = Callable[[Scene], str | None]
# What etcd's clients are told while it elects a leader (docs/failover.md: 503, "writes go on within …").
ELECTION = ("NO_QUORUM", "UNKNOWN_OUTCOME")


@dataclass(frozen=True)
class Step:
    """`title` says what holds when it has passed."""

    title: str
    run: Run


def applied(scene: Scene) -> str | None:
    said = scene.terminal.run(scene.page.take("kubectl apply -k"), 120)
    if scene.stage.manager.refused:
        raise Broken(f"pods were not admitted: {scene.stage.manager.refused}")
    return f"{len(said.split(chr(10))) - 2} objects"


def rolled_out(scene: Scene) -> str | None:
    block = scene.page.take("rollout status")
    if scene.overlay == "prod-cert-manager":  # no certificates of ours, as the page says
        block = "\n".join(line for line in block.splitlines() if "job/strongbox-certificates" not in line)
        block = block.replace("deployment/strongbox-certificates ", "")
    scene.terminal.run(block, 300)
    return None


def initialised(scene: Scene) -> str | None:
    said = scene.terminal.run(scene.page.take("port-forward"), 60)
    answer = json.loads(said[said.index("{", said.index("Forwarding")) :])
    scene.shares, scene.door.token = answer["shares"], answer["root_token"]
    return f"{len(scene.shares)} shares"


def unsealed(scene: Scene) -> str | None:
    block = scene.page.take("operator unseal")
    for number, share in enumerate(scene.shares[:2]):
        file = scene.stage.place / f"share-{number}"
        file.write_text(share)
        # Exit status 2: one share is not enough.
        scene.terminal.run(f"{block.strip()} || test $? = 2", 60, given=str(file))
        file.unlink()
    said = scene.terminal.run(f"{scene.page.take('operator status')} || test $? = 2", 60)
    scene.require_unsealed(scene.count)
    if "sealed" not in said:
        raise Broken(f"`strongbox operator status` does not say whether it is sealed:\n{said}")
    return f"{scene.count} of {scene.count} nodes"


def first_secret(scene: Scene) -> str | None:
    scene.terminal.run(f"export STRONGBOX_TOKEN={scene.door.token}")
    said = scene.terminal.run(scene.page.take("kv put"), 60)
    if SECRET not in said:
        raise Broken(f"`kv get` does not show what was put:\n{said}")
    scene.require_secret()
    return None


def nothing_was_killed(scene: Scene) -> str | None:
    """No probe ended a container, and every one that was told to go went within its grace."""
    once = ("strongbox-certificates", "strongbox-etcd-users")  # `sleep` hears no SIGTERM as a first process
    killed = [one for one in scene.stage.kubelet.killed if not one.startswith(once)]
    if killed:
        raise Broken("; ".join(killed))
    return None


def each_kind_lost_of_one(scene: Scene) -> str | None:
    """With one replica there is a gap, and afterwards everything is as before (seal: people unseal)."""
    spent = []
    for kind in ORDER:
        for how in ("process killed", "pod deleted"):
            begun = time.monotonic()
            pod = scene.stage.pods(kind)[0]["metadata"]["name"]
            before = scene.restarts()[pod]
            if how == "process killed":
                scene.kill(pod)
                eventually(60, lambda p=pod, b=before: scene.restarts().get(p, 0) > b, f"restart of {pod}")
            else:
                scene.kubectl(f"delete pod {pod}")
            scene.settled(kind)
            if kind == "seal":
                eventually(30, lambda: _unseal(scene), "unsealing")
            scene.require_secret(60)
            spent.append(f"{kind} {time.monotonic() - begun:.0f} s")
    return ", ".join(spent[1::2])


def _unseal(scene: Scene) -> bool:
    scene.unseal()
    return True


def load_begins(scene: Scene) -> str | None:
    scene.load = Load(scene.stage, scene.door)
    scene.load.__enter__()
    begun = time.time()
    time.sleep(5.0)
    return scene.judged(begun)


def upgraded(scene: Scene) -> str | None:
    """The documented order under load, with an image of another tag."""
    scene.stage.shell("sed -i 's/newTag: 0.1.0/newTag: 0.1.1/' k8s/components/release/kustomization.yaml", 10)
    begun = time.time()
    scene.terminal.run(scene.page.take("--timeout=10m"), 900)
    for kind in ORDER:
        scene.settled(kind)
        old = [
            pod["metadata"]["name"]
            for pod in scene.stage.pods(kind)
            for one in pod["spec"]["containers"]
            if one["image"].endswith("strongbox:0.1.0")
        ]
        if old:
            raise Broken(f"still of the old image: {old}")
    scene.require_unsealed(scene.count)
    scene.require_secret()
    return f"{time.time() - begun:.0f} s; {scene.judged(begun)}"


def each_kind_lost(scene: Scene) -> str | None:
    """Of three: no request fails; while etcd elects a leader, 503 is documented."""
    remarks = []
    for kind in ORDER:
        allowed = ELECTION if kind == "etcd" else ()
        for how in ("killed", "deleted"):
            pod = _leader(scene) if kind == "etcd" else scene.stage.pods(kind)[0]["metadata"]["name"]
            begun, before = time.time(), scene.restarts()[pod]
            if how == "killed":
                scene.kill(pod)
                eventually(60, lambda p=pod, b=before: scene.restarts().get(p, 0) > b, f"restart of {pod}")
            else:
                scene.kubectl(f"delete pod {pod}")
            scene.settled(kind)
            if kind == "seal":
                scene.require_unsealed(scene.count)
            try:
                remarks.append(f"{kind} {how}: {scene.judged(begun, allowed)}")
            except Broken as broken:
                raise Broken(f"{kind} {how}: {broken}") from None
            time.sleep(5.0)
    return "; ".join(remarks)


def _leader(scene: Scene) -> str:
    """The pod of etcd's leader, by its metrics."""
    for pod in scene.stage.pods("etcd"):
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:2381/metrics", timeout=5) as page:
            if b"\netcd_server_is_leader 1\n" in page.read():
                return str(pod["metadata"]["name"])
    raise Broken("no member of etcd says that it leads")


def drained(scene: Scene) -> str | None:
    """A node is emptied within the budgets, and comes back."""
    begun = time.time()
    scene.stage.shell("kubectl drain node-1 --delete-emptydir-data --ignore-daemonsets --timeout=5m", 320)
    left = [
        p["metadata"]["name"] for p in scene.stage.store.list("pods") if p["spec"].get("nodeName") == "node-1"
    ]
    if left:
        raise Broken(f"still on the node: {left}")
    time.sleep(5.0)
    scene.stage.shell("kubectl uncordon node-1", 30)
    for kind in ORDER:
        scene.settled(kind)
    scene.require_unsealed(scene.count)
    return f"{time.time() - begun:.0f} s; {scene.judged(begun, ELECTION)}"


def everything_documented_was_run(scene: Scene) -> str | None:
    left = scene.page.left()
    if left:
        raise Broken("never run:\n" + "\n".join(left))
    return None


TO_A_FIRST_SECRET = (
    Step("the overlay is applied", applied),
    Step("everything is rolled out", rolled_out),
    Step("init gives shares", initialised),
    Step("two of three shares unseal", unsealed),
    Step("a first secret is written and read", first_secret),
    Step("no container had to be killed", nothing_was_killed),
)
OF_ONE = (
    *TO_A_FIRST_SECRET,
    Step("each pod, lost, comes back with everything", each_kind_lost_of_one),
)
OF_THREE = (
    *TO_A_FIRST_SECRET,
    Step("clients write and read", load_begins),
    Step("an upgrade in the documented order fails no request", upgraded),
    Step("a pod of each kind, lost, fails no request", each_kind_lost),
    Step("a node is drained and no request fails", drained),
    Step("no container had to be killed", nothing_was_killed),
    Step("every command of docs/deploying.md was run", everything_documented_was_run),
)
