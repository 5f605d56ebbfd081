"""A pod logs in with its service account's token, by the commands of docs/auth.md."""

from __future__ import annotations

from tests.rehearsal.scene import Broken, Scene
from tests.rehearsal.terminal import CommandFailed

_HOST = "https://kubernetes.default.svc"


def logged_in(scene: Scene) -> str | None:
    """With the audience that the role names; with another, refused."""
    scene.stage.shell("kubectl create namespace shop; kubectl -n shop create serviceaccount web", 30)
    scene.forward_again()
    own = scene.page.has("kubernetes config write")
    if own:
        scene.terminal.run(scene.page.take("kubernetes config write"))
    else:
        scene.stage.shell("cp ../kubernetes-ca.crt ca.pem", 5)
        config = f"--host {_HOST} --ca-file ca.pem --reviewer-file {_reviewer(scene)}"
        scene.terminal.run(f"strongbox kubernetes config write {config}")
    scene.door.call(
        "PUT", "/v1/policies/app", {"rules": [{"path": "secret/app/*", "capabilities": ["read"]}]}
    )
    role = "--service-account web --namespace shop --audience strongbox --policy app"
    scene.terminal.run(f"strongbox kubernetes role write web {role}")
    _token(scene, "web.jwt", ["strongbox"])
    scene.terminal.run("strongbox login --kubernetes web --file web.jwt --token-only")
    _token(scene, "other.jwt", [])
    refused = "strongbox login --kubernetes web --file other.jwt --token-only"
    try:
        scene.stage.shell(_with_address(refused), 30)
    except CommandFailed as failed:
        if "Traceback" in failed.said:
            raise
        return "reviewed by auth's own account" if own else "with a reviewer's token"
    raise Broken("a token without the role's audience has logged in")


def _with_address(command: str) -> str:
    return f"STRONGBOX_ADDR=https://localhost:8443 STRONGBOX_CACERT=$PWD/ca.crt {command}"


def _token(scene: Scene, name: str, audiences: list[str]) -> None:
    text = scene.stage.tokens.issue("shop", "web", 600, audiences)
    (scene.stage.work / name).write_text(text)


def _reviewer(scene: Scene) -> str:
    account = "kube-system:strongbox-reviewer"
    scene.stage.shell("kubectl -n kube-system create serviceaccount strongbox-reviewer", 30)
    scene.stage.shell(
        "kubectl create clusterrolebinding strongbox-reviewer --clusterrole=system:auth-delegator "
        f"--serviceaccount={account}",
        30,
    )
    text = scene.stage.tokens.issue("kube-system", "strongbox-reviewer", 3600, [])
    (scene.stage.work / "reviewer.jwt").write_text(text)
    return "reviewer.jwt"
