"""Taking StrongBox away: what holds data stays, until all of it is to go."""

from __future__ import annotations

from tests.rehearsal.door import eventually
from tests.rehearsal.scene import ORDER, Scene


def taken_away(scene: Scene) -> str | None:
    """Without the data, applied again (people unseal), and then with them."""
    if not scene.page.has("kubectl delete -k"):
        return "the page does not say how"
    if scene.load is not None:
        scene.load.close()
        scene.load = None
    scene.terminal.run(scene.page.take("kubectl delete -k"), 180)
    eventually(60, lambda: not scene.stage.store.list("pods", "strongbox"), "the end of all pods")
    scene.stage.shell(f"kubectl apply -k k8s/overlays/{scene.overlay}", 120)
    for kind in ORDER:
        scene.settled(kind)
    eventually(30, lambda: _unsealed(scene), "unsealing")
    scene.require_secret(60)
    scene.terminal.run(scene.page.take("kubectl delete -k"), 180)
    eventually(60, lambda: not scene.stage.store.list("secrets", "strongbox"), "the end of everything")
    return None


def _unsealed(scene: Scene) -> bool:
    scene.unseal()
    return True
