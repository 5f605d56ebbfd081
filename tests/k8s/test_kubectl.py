"""The documented commands, done by the real kubectl against an API server of our own that keeps objects."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.manifests import BIN, OVERLAYS, ROOT, manifests, workloads
from tests.support.kube_api import KubeApi

KUBECTL = BIN / "kubectl"
DATA = {f"data-strongbox-{name}-{n}" for name in ("etcd", "audit") for n in range(3)}
SECRETS = {"strongbox-authority-tls", "strongbox-etcd-tls", "strongbox-seal-0-tls"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(tmp_path) as running:
        yield running


def apply(api: KubeApi, folder: Path) -> list[str]:
    """What kubectl says of each object."""
    done = api.kubectl(KUBECTL, "apply", "--validate=false", "-k", str(folder))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def overlay(name: str) -> Path:
    return ROOT / "k8s" / "overlays" / name


def own_overlay(folder: Path, image: str) -> Path:
    """An operator's own overlay over `prod`."""
    folder.mkdir(exist_ok=True)
    below = os.path.relpath(overlay("prod"), folder)
    text = f"resources: [{below}]\nimages:\n- {{ name: strongbox, newName: {image}, newTag: '1' }}\n"
    (folder / "kustomization.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_applied_unchanged_is_unchanged(api: KubeApi, name: str) -> None:
    assert {line.split()[-1] for line in apply(api, overlay(name))} == {"created"}
    sent = {line.split()[0] for line in apply(api, overlay(name)) if not line.endswith(" unchanged")}
    # A budget's selector is sent each time, and so are templates of claims: their status is not ours.
    budgets = {f"poddisruptionbudget.policy/strongbox-{each}" for each in workloads(name)}
    assert sent == budgets | {"statefulset.apps/strongbox-etcd", "statefulset.apps/strongbox-audit"}


def test_a_diff_after_applying_is_quiet_and_one_of_something_else_is_not(
    api: KubeApi, tmp_path: Path
) -> None:
    apply(api, overlay("prod"))
    quiet = api.kubectl(KUBECTL, "diff", "-k", str(overlay("prod")))
    assert (quiet.returncode, quiet.stdout) == (0, ""), quiet.stderr
    loud = api.kubectl(KUBECTL, "diff", "-k", str(own_overlay(tmp_path / "own", "registry.example/other")))
    assert loud.returncode == 1
    assert "registry.example/other:1" in loud.stdout


def test_a_wrong_image_is_corrected_by_applying_again(api: KubeApi, tmp_path: Path) -> None:
    apply(api, own_overlay(tmp_path / "own", "registry.example/strongbxo"))
    apply(api, own_overlay(tmp_path / "own", "registry.example/strongbox"))
    assert "strongbxo" not in str([one["spec"] for one in api.objects.values() if "spec" in one])


def commands(heading: str) -> list[list[str]]:
    """The words of each kubectl command below a heading of docs/deploying.md."""
    text = (ROOT / "docs" / "deploying.md").read_text("utf-8").partition(f"\n### {heading}\n")[2]
    script = re.split(r"\n##+ ", text)[0].partition("```sh\n")[2].partition("```")[0]
    found = [shlex.split(line, comments=True) for line in script.splitlines() if line.startswith("kubectl ")]
    assert found, heading
    # Nothing takes time here; waiting, kubectl asks five times a second for one object after the other.
    return [
        [*(word.replace("k8s/", f"{ROOT}/k8s/") for word in words[1:]), "--wait=false"] for words in found
    ]


def fill(api: KubeApi) -> None:
    """All that is applied, and what comes into being then: claims, certificates, somebody's own things."""
    apply(api, overlay("prod"))
    for name in DATA:
        api.put("PersistentVolumeClaim", name, "strongbox")
    for name in SECRETS:
        api.put("Secret", name, "strongbox")
    earlier = {"app.kubernetes.io/name": "strongbox-settings"}
    api.put("ConfigMap", "strongbox-settings-earlier", "strongbox", labels=earlier)
    api.put("Namespace", "other", "")
    api.put("Secret", "others", "other")


def test_taken_away_without_the_data_everything_that_holds_some_stays(api: KubeApi) -> None:
    fill(api)
    for words in commands("And keep the data"):
        done = api.kubectl(KUBECTL, *words)
        assert done.returncode == 0, done.stderr
    assert api.names("Namespace") == {"strongbox", "other"}
    assert api.names("PersistentVolumeClaim") == DATA
    assert api.names("Secret") == SECRETS | {"others"}
    assert {one["kind"] for one in api.objects.values()} == {"Namespace", "PersistentVolumeClaim", "Secret"}
    # A second time too, and back again.
    for words in commands("And keep the data"):
        assert api.kubectl(KUBECTL, *words).returncode == 0
    apply(api, overlay("prod"))
    assert api.names("PersistentVolumeClaim") == DATA


def test_taken_away_with_the_data_nothing_is_left(api: KubeApi) -> None:
    fill(api)
    for words in commands("With all data"):
        done = api.kubectl(KUBECTL, *words)
        assert done.returncode == 0, done.stderr
    assert {place.name for place in api.objects} == {"other", "others"}
    for words in commands("With all data"):
        assert api.kubectl(KUBECTL, *words).returncode == 0


@pytest.mark.parametrize("name", OVERLAYS)
def test_claims_outlive_their_stateful_set(name: str) -> None:
    for one in workloads(name).values():
        if one["spec"].get("volumeClaimTemplates"):
            kept = one["spec"]["persistentVolumeClaimRetentionPolicy"]
            assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_namespace_alone_holds_data_of_what_is_applied(name: str) -> None:
    """No secret, no claim is in the manifests: neither can be removed, or emptied, with them."""
    kinds = {one["kind"] for one in manifests(name)}
    assert not kinds & {"Secret", "PersistentVolumeClaim", "PersistentVolume"}


def test_what_the_documents_wait_for_is_there_for_good() -> None:
    """A Job that is over is gone after a while, and waiting for it an error."""
    text = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    found = set(re.findall(r"\b(deployment|statefulset|job|cronjob)/(strongbox-[a-z-]*[a-z])\b", text))
    there = {(one["kind"].lower(), one["metadata"]["name"]) for one in manifests("prod")}
    assert ("deployment", "strongbox-etcd-users") in found
    assert found <= there
    assert not re.search(r"kubectl[^\n]* (wait|delete) [^\n]*job", text)
