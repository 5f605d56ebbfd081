"""Clients, and the upgrade that they do not notice."""

from __future__ import annotations

import time

from tests.rehearsal.door import Load
from tests.rehearsal.scene import ORDER, Broken, Scene


def load_begins(scene: Scene) -> str | None:
    scene.load = Load(scene.stage, scene.door)
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
