"""What people get wrong, and how the page says it is put right."""

from __future__ import annotations

from tests.rehearsal.door import eventually
from tests.rehearsal.scene import Broken, Scene
from tests.rehearsal.terminal import CommandFailed

_RELEASE = "k8s/components/release/kustomization.yaml"


def a_wrong_image_put_right(scene: Scene) -> str | None:
    """The first apply names an image that is not there; the name is corrected and all is applied again."""
    if scene.page.has("--dry-run=server"):
        _refused_without_namespace(scene)
    scene.stage.shell(f"sed -i 's/newTag: 0.1.0/newTag: 0.0.9-missing/' {_RELEASE}", 10)
    scene.stage.shell(f"kubectl apply -k k8s/overlays/{scene.overlay}", 60)
    eventually(30, lambda: _waits_for_image(scene), "pods that wait for their image")
    scene.stage.shell(f"sed -i 's/newTag: 0.0.9-missing/newTag: 0.1.0/' {_RELEASE}", 10)
    if not scene.page.has("delete job strongbox-certificates"):
        return None  # the page says that applying again is enough: the next steps see whether it is
    scene.terminal.run(scene.page.take("delete job strongbox-certificates"))
    return "with the Jobs removed"


def _refused_without_namespace(scene: Scene) -> None:
    command = f"{scene.page.take('--dry-run=server')} -k k8s/overlays/{scene.overlay}"
    try:
        scene.stage.shell(command, 60)
    except CommandFailed as failed:
        if 'namespaces "strongbox" not found' in failed.said:
            return
        raise
    raise Broken("a dry run without the namespace was taken")


def _waits_for_image(scene: Scene) -> bool:
    waiting = [p for p in scene.stage.store.list("pods") if "ImagePull" in p["status"].get("message", "")]
    return bool(waiting)


def a_wrong_setting_undone(scene: Scene) -> str | None:
    """A wrong value stops at the first new pod, nobody notices, and `rollout undo` takes it back."""
    if not scene.page.has("kubectl rollout undo"):
        return "the page does not say how"
    command = scene.page.take("kubectl rollout undo")
    _log_level(scene, "loud")
    scene.stage.shell(
        f"kubectl apply -k k8s/overlays/{scene.overlay} -l app.kubernetes.io/name=strongbox-settings", 60
    )
    scene.stage.shell(
        f"kubectl apply -k k8s/overlays/{scene.overlay} -l app.kubernetes.io/name=strongbox-auth", 60
    )
    eventually(60, lambda: len(scene.stage.pods("auth")) == scene.count + 1, "a new pod of auth")
    eventually(
        60, lambda: any(scene.restarts()[p["metadata"]["name"]] for p in scene.stage.pods("auth")), "its end"
    )
    if len(scene.ready("auth")) != scene.count:
        raise Broken("the old pods of auth did not stay")
    scene.stage.shell(f"{command} deployment/strongbox-auth -n strongbox", 30)
    scene.settled("auth")
    _log_level(scene, "info")
    return None


def _log_level(scene: Scene, level: str) -> None:
    setting = "STRONGBOX_LOG_LEVEL="
    scene.stage.shell(f"sed -i 's/^{setting}.*/{setting}{level}/' k8s/base/settings/common.env", 5)
