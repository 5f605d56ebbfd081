"""Sections 2 and 3 of docs/deploying.md: from nothing to a first secret."""

from __future__ import annotations

import json

from tests.rehearsal.scene import SECRET, Broken, Scene

# Their work is an init container's or a Job's; what rests behind it is `sleep`, which hears no SIGTERM.
_REST = ("strongbox-certificates", "strongbox-etcd-users")


def applied(scene: Scene) -> str | None:
    said = scene.terminal.run(scene.page.take("kubectl apply -k"), 120)
    if scene.stage.controllers.refused:
        raise Broken(f"pods were not admitted: {scene.stage.controllers.refused}")
    if scene.page.has("kubectl diff -k"):  # "quiet": exit status 0
        scene.terminal.run(scene.page.take("kubectl diff -k") + f" k8s/overlays/{scene.overlay}", 60)
    return f"{sum(' created' in line for line in said.splitlines())} objects"


def rolled_out(scene: Scene) -> str | None:
    block = scene.page.take("rollout status")
    if scene.overlay == "prod-cert-manager":  # no certificates of ours, as the page says
        block = "\n".join(line for line in block.splitlines() if "job/strongbox-certificates" not in line)
        block = block.replace("deployment/strongbox-certificates ", "")
    scene.terminal.run(block, scene.patience)
    return None


def initialised(scene: Scene) -> str | None:
    block = scene.page.take("port-forward")
    scene.forwarding = next(line for line in block.splitlines() if "port-forward" in line)
    said = scene.terminal.run(block, 60)
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
    said = scene.terminal.run(f"{scene.page.take('operator status')} -o json", 60)
    if json.loads(said)["sealed"] is not False:
        raise Broken(f"`strongbox operator status` does not say `sealed: false`:\n{said}")
    scene.require_unsealed(scene.count)
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
    killed = [one for one in scene.stage.kubelet.killed if not one.startswith(_REST)]
    if killed:
        raise Broken("; ".join(killed))
    return None


def everything_documented_was_run(scene: Scene) -> str | None:
    left = scene.page.left()
    if left:
        raise Broken("never run:\n" + "\n".join(left))
    return None
