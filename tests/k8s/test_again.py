"""What is applied a second time: another image, another setting, one workload after the other."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from strongbox.config import SERVICES, Settings
from tests.k8s.manifests import (
    OVERLAYS,
    ROOT,
    RUN_ONCE,
    Manifest,
    built,
    containers,
    manifests,
    named,
    parsed,
    pods,
)
from tools.manifests import meaning

NAME = "app.kubernetes.io/name"
READERS = {
    "strongbox-settings": {*SERVICES, "etcd-users"},
    "strongbox-certificates-settings": {"certificates"},
    **{f"strongbox-{name}-settings": {name} for name in (*SERVICES, "gateway")},
}


def templates(several: tuple[Manifest, ...]) -> dict[tuple[str, str], Any]:
    """The pod template of everything that runs, by kind and the name behind `strongbox-`."""
    found = {}
    for one in several:
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found[one["kind"], one["metadata"]["name"].removeprefix("strongbox-")] = spec["template"]
    return found


def changed(folder: Path, overlay: str, more: str) -> tuple[Manifest, ...]:
    """The overlay as an operator's own overlay changes it."""
    below = os.path.relpath(ROOT / "k8s" / "overlays" / overlay, folder)
    head = f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{below}]\n"
    (folder / "kustomization.yaml").write_text(head + more)
    return parsed(built(folder))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_is_applied_can_be_applied_again_with_another_image(overlay: str, tmp_path: Path) -> None:
    """Kubernetes changes no Job's template, and no Pod's."""
    images = "images:\n- { name: strongbox, newName: registry.example/strongbox, newTag: '9' }\n"
    after = changed(tmp_path, overlay, images)
    assert {one["kind"] for one in after} & {"Job", "Pod", "ReplicaSet"} == set()
    assert "registry.example/strongbox:9" in {one["image"] for one in containers(_pod(after, "etcd-users"))}


def _pod(several: tuple[Manifest, ...], name: str) -> Manifest:
    (found,) = [
        t["spec"] for (kind, mine), t in templates(several).items() if (kind, mine) == ("Deployment", name)
    ]
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("settings", READERS)
def test_a_changed_setting_restarts_those_that_read_it_and_nobody_else(settings: str, tmp_path: Path) -> None:
    what = f"name: {settings}, behavior: merge, namespace: strongbox, literals: [STRONGBOX_X=1]"
    merge = f"configMapGenerator:\n- {{ {what} }}\n"
    before, after = templates(manifests("prod")), templates(changed(tmp_path, "prod", merge))
    assert before.keys() == after.keys()
    restarted = {name for (_, name), template in after.items() if template != before[_, name]}
    assert restarted == READERS[settings]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_setting_of_one_service_is_in_the_settings_of_that_service(overlay: str) -> None:
    """Or a change of it would restart all five."""
    common, own = settings_of(overlay, "strongbox-settings"), {}
    for service in SERVICES:
        own |= dict.fromkeys(settings_of(overlay, f"strongbox-{service}-settings"), service)
    for name in Settings.model_fields:
        variable = f"STRONGBOX_{name.upper()}"
        if name == "service":
            continue
        told = re.match(r"(\w+): ", meaning(name)) or re.match(r"(audit)_", name)
        if told:
            assert variable not in common
            assert own.get(variable, told[1]) == told[1], variable
    assert not common.keys() & own.keys()


def settings_of(overlay: str, name: str) -> dict[str, str]:
    """The values of a ConfigMap whose name ends with a hash."""
    (found,) = [
        one["data"]
        for one in manifests(overlay)
        if one["kind"] == "ConfigMap" and re.fullmatch(rf"{name}-[a-z0-9]{{10}}", one["metadata"]["name"])
    ]
    return found  # type: ignore[no-any-return]


Selector = Callable[[Manifest], bool]


def upgrade_steps() -> Iterator[Selector]:
    """What each `kubectl apply` of the documented upgrade applies."""
    text = (ROOT / "docs" / "deploying.md").read_text("utf-8").partition("## Upgrade")[2]
    script = text.partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")
    several = re.search(r"for each in ([^;\n]+)", script)
    assert several is not None
    for line in script.splitlines():
        if "kubectl apply" not in line:
            continue
        label = re.search(r"-l '?([^ ']+)", line)
        if label is None:
            yield lambda _: True
        elif "each" in label[1]:
            for each in several[1].split():
                yield selecting(f"{NAME}=strongbox-{each.partition('/strongbox-')[2]}")
        else:
            yield selecting(label[1])


def selecting(selector: str) -> Selector:
    """By one label, `=` or `!=`, as kubectl does."""
    key, is_not, value = re.fullmatch(r"([^!=]+)(!?)=(.+)", selector).groups()  # type: ignore[union-attr]
    return lambda one: (one["metadata"].get("labels", {}).get(key) == value) is (not is_not)


def needs(template: Any, overlay: str) -> Iterator[tuple[str, str]]:
    """What has to be there before such a pod can start, or can reach anybody."""
    pod = template["spec"]
    for container in containers(pod):
        for source in container.get("envFrom", ()):
            yield "ConfigMap", source["configMapRef"]["name"]
    if "serviceAccountName" in pod:
        yield "ServiceAccount", pod["serviceAccountName"]
    yield "NetworkPolicy", template["metadata"]["labels"][NAME]
    for volume in pod.get("volumes", ()):
        if "secret" in volume and overlay == "prod-cert-manager":
            yield "Certificate", volume["secret"]["secretName"].removesuffix("-tls")
        elif "secret" in volume:
            yield "Deployment", "strongbox-certificates"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_in_the_documented_upgrade_nothing_is_started_before_what_it_needs(overlay: str) -> None:
    applied: set[tuple[str, str]] = set()
    begun: list[str] = []
    for selects in upgrade_steps():
        step = tuple(one for one in manifests(overlay) if selects(one))
        assert step, "kubectl says: no objects passed to apply"
        applied |= {(one["kind"], one["metadata"]["name"]) for one in step}
        for (_, name), template in templates(step).items():
            begun.append(name)
            assert {*needs(template, overlay)} <= applied, name
    order = ["etcd", "seal", "audit", "lease", "auth", "kv", "gateway"]
    assert [name for name in begun if name in order][:7] == order, "one by one; then once more, with the rest"
    assert applied == {(one["kind"], one["metadata"]["name"]) for one in manifests(overlay)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_stays_after_the_work_was_done_is_given_nothing(overlay: str) -> None:
    """It is there for good: no certificate, no account, no settings."""
    found = {
        name.partition("/strongbox-")[2]: pod for name, pod in pods(overlay) if name.startswith("Deployment/")
    }
    for name in RUN_ONCE & found.keys():
        (idle,) = found[name]["containers"]
        assert idle["command"] == ["sleep", "infinity"]
        assert not {"env", "envFrom", "volumeMounts"} & idle.keys()
        (worker,) = found[name]["initContainers"]
        assert worker["args"][0] == "strongbox.setup"
    assert RUN_ONCE - found.keys() == ({"certificates"} if overlay == "prod-cert-manager" else set())


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_the_certificates_account_is_in_no_container_but_the_one_that_works(overlay: str) -> None:
    for name, pod in pods(overlay):
        for container in containers(pod):
            account = "/var/run/secrets/kubernetes.io/serviceaccount"
            mounts = {one["mountPath"] for one in container.get("volumeMounts", ())}
            works = name.endswith("/strongbox-certificates") and container["name"] == "certificates"
            assert (account in mounts) is works, (name, container["name"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_selector_takes_another_workloads_pods(overlay: str) -> None:
    several = templates(manifests(overlay))
    for (kind, name), template in several.items():
        if kind == "CronJob":
            continue
        selector = named(overlay, kind, f"strongbox-{name}")["spec"]["selector"]["matchLabels"]
        matched = {
            mine for mine, other in several.items() if selector.items() <= other["metadata"]["labels"].items()
        }
        assert matched == {(kind, name)}
        assert template["metadata"]["labels"][NAME] == f"strongbox-{name}"
