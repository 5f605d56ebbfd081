"""The pages for operators: overlays build, kubectl takes the commands, an upgrade stops where one fails."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.manifests import BIN, ROOT, Manifest, built, containers, manifests, parsed
from tests.support.kube_api import KubeApi

PAGES = ("deploying.md", "recovering.md")
STUB = '#!/bin/sh\necho "$*" >>"$SAID"\ncase "$*" in *"$FAILS"*) exit 1;; esac\n'


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next of its rank or above."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    mark, _, _ = heading.partition(" ")
    found = text.partition(f"\n{heading}\n")[2]
    assert found, heading
    return re.split(rf"\n#{{2,{len(mark)}}} ", found)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def overlays(page: str, tmp_path: Path) -> Iterator[tuple[Manifest, ...]]:
    """Each overlay that a page shows, made and built as it says, beside `k8s`."""
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    found = blocks((ROOT / "docs" / page).read_text("utf-8"), "yaml")
    named = [(re.match(r"# (\S+)/(\S+\.yaml)", text), text) for text in found]
    files = [(match[1], match[2], text) for match, text in named if match]
    for folder, name, text in files:
        (tmp_path / folder).mkdir(exist_ok=True)
        below = os.path.relpath(ROOT / "k8s", tmp_path / folder)
        (tmp_path / folder / name).write_text(text.replace("../k8s", below))
    for folder in sorted({folder for folder, _, _ in files}):
        yield parsed(built(tmp_path / folder))


def pods_of(several: tuple[Manifest, ...]) -> Iterator[Manifest]:
    for one in several:
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield spec["template"]["spec"]


def test_the_overlay_that_is_shown_changes_what_it_says(tmp_path: Path) -> None:
    mine, _ = overlays("deploying.md", tmp_path)
    pods = [*pods_of(mine)]
    assert len(pods) == len([*pods_of(manifests("prod"))])
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}] for pod in pods)
    images = {one["image"] for pod in pods for one in containers(pod)}
    assert len(images) == 3
    assert "registry.example/strongbox:0.1.0" in images
    settings = {one["metadata"]["name"]: one["data"] for one in mine if one["kind"] == "ConfigMap"}
    (name,) = [one for one in settings if one.startswith("strongbox-certificates-settings-")]
    assert settings[name]["STRONGBOX_GATEWAY_NAMES"] == "box.example,192.0.2.7"
    assert settings[name]["STRONGBOX_ETCD_REPLICAS"] == "3"
    readers = [
        pod
        for pod in pods
        for one in containers(pod)
        if {"configMapRef": {"name": name}} in one.get("envFrom", ())
    ]
    assert len(readers) == 2, "at first, and daily"
    policies = {one["metadata"]["name"] for one in mine if one["kind"] == "NetworkPolicy"}
    assert {"more-dns", "more-databases", "strongbox-default"} <= policies


def test_a_second_installation_takes_nothing_from_the_first(tmp_path: Path) -> None:
    _, second = overlays("deploying.md", tmp_path)

    def places(several: tuple[Manifest, ...]) -> set[tuple[str, ...]]:
        return {
            (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in several
        }

    assert not places(second) & places(manifests("prod"))
    (binding,) = [one for one in second if one["kind"] == "ClusterRoleBinding"]
    assert [subject["namespace"] for subject in binding["subjects"]] == ["second"]
    assert {one["metadata"]["name"] for one in second if one["kind"] == "Namespace"} == {"second"}


def test_a_larger_volume_is_one_of_the_stateful_set_alone(tmp_path: Path) -> None:
    (mine,) = overlays("recovering.md", tmp_path)
    different = [one for one in mine if one not in manifests("prod")]
    assert [one["metadata"]["name"] for one in different] == ["strongbox-audit"]


@pytest.mark.parametrize(
    ("fails", "last"),
    [
        ("rollout status statefulset/strongbox-etcd", "rollout status statefulset/strongbox-etcd"),
        ("name=strongbox-audit", "name=strongbox-audit"),
        ("one-by-one", "one-by-one"),
        ("nothing", "apply -k k8s/overlays/prod"),
    ],
)
def test_an_upgrade_stops_at_the_step_that_fails(fails: str, last: str, tmp_path: Path) -> None:
    """In a shell as people have it, which goes on after a failure."""
    (script,) = blocks(section("deploying.md", "## Upgrade, one by one"), "sh")
    stub = tmp_path / "kubectl"
    stub.write_text(STUB)
    stub.chmod(0o755)
    said = tmp_path / "said"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "SAID": str(said), "FAILS": fails}
    done = subprocess.run(
        ["bash", "-s"], input=script, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == (0 if fails == "nothing" else 1), done.stderr
    asked = said.read_text().splitlines()
    assert last in asked[-1]
    assert len(asked) == (16 if fails == "nothing" else asked.index(asked[-1]) + 1)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(tmp_path) as running:
        prod = str(ROOT / "k8s" / "overlays" / "prod")
        done = running.kubectl(BIN / "kubectl", "apply", "--validate=false", "-k", prod)
        assert done.returncode == 0, done.stderr
        yield running


def run(api: KubeApi, script: str, tmp_path: Path) -> str:
    """A block of the page in a shell whose `kubectl` speaks to our API server; what it prints."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    stub = tmp_path / "bin" / "kubectl"
    where = f"--server={api.url} --kubeconfig=/dev/null --cache-dir={tmp_path / 'cache'}"
    stub.write_text(f'#!/bin/sh\nexec {BIN / "kubectl"} {where} "$@"\n')
    stub.chmod(0o755)
    script = script.replace("apply -k k8s/", f"apply --validate=false -k {ROOT}/k8s/")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-s"], input=script, cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False, env={"PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stateful(api: KubeApi, name: str) -> Any:
    (found,) = [
        one["spec"]
        for one in api.objects.values()
        if (one["kind"], one["metadata"]["name"]) == ("StatefulSet", name)
    ]
    return found


def state_of(spec: Any) -> tuple[str, dict[str, Any]]:
    (etcd,) = spec["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value") for one in etcd["env"]}
    return told["INITIAL_CLUSTER_STATE"], spec["updateStrategy"]


def test_while_a_member_is_replaced_the_others_are_left_alone_and_afterwards_all_is_as_before(
    api: KubeApi, tmp_path: Path
) -> None:
    for n in range(3):
        api.put("PersistentVolumeClaim", f"data-strongbox-etcd-{n}", "strongbox")
    first, last = blocks(section("recovering.md", "## A member of etcd"), "sh")
    before = state_of(stateful(api, "strongbox-etcd"))
    assert before[0] == "new"
    run(api, first, tmp_path)
    assert state_of(stateful(api, "strongbox-etcd")) == ("existing", {"type": "OnDelete"})
    assert api.names("PersistentVolumeClaim") == {"data-strongbox-etcd-0", "data-strongbox-etcd-1"}
    run(api, last.splitlines()[0], tmp_path)
    assert state_of(stateful(api, "strongbox-etcd")) == before


def test_a_claim_that_is_enlarged_stays_and_its_stateful_set_makes_room(api: KubeApi, tmp_path: Path) -> None:
    for n in range(3):
        api.put("PersistentVolumeClaim", f"data-strongbox-audit-{n}", "strongbox")
    (script,) = blocks(section("recovering.md", "## Volumes that are too small"), "sh")
    run(api, script, tmp_path)
    sizes = [one["spec"] for one in api.objects.values() if one["kind"] == "PersistentVolumeClaim"]
    assert sizes == [{"resources": {"requests": {"storage": "40Gi"}}}] * 3
    assert "strongbox-audit" not in api.names("StatefulSet")


@pytest.mark.parametrize("page", PAGES)
def test_every_place_that_a_page_leads_to_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    for name, anchor in re.findall(r"\]\(([a-z-]*\.md)?(?:#([a-z0-9-]+))?\)", text):
        there = (ROOT / "docs" / (name or page)).read_text("utf-8")
        titles = re.findall(r"^#+ (.*)$", there, re.M)
        anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, f"{name}#{anchor}"
