"""The manifests do what docs/deploying.md says: to a first secret here, the rest by `make heavy`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.rehearsal.node.images import ROOT

_RUN = [sys.executable, "-m", "tests.rehearsal"]


def _rehearsed(*words: str, timeout: float) -> str:
    """What it prints when all held."""
    done = subprocess.run(
        [*_RUN, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_the_smallest_overlay_comes_to_a_first_secret_by_the_documented_commands() -> None:
    said = _rehearsed("dev", "--short", timeout=200)
    assert "a first secret is written and read" in said
    assert "rehearsal: all held" in said


@pytest.mark.cluster
@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("overlay", ["dev", "prod", "prod-cert-manager"])
def test_an_overlay_holds_what_is_promised_of_it(overlay: str) -> None:
    assert "rehearsal: all held" in _rehearsed(overlay, timeout=1700)


@pytest.mark.cluster
def test_a_rehearsal_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    mark = str(tmp_path / "logs")
    running = subprocess.Popen(
        [*_RUN, "dev", "--short", "--logs", mark], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    ends = time.monotonic() + 60
    while not list(Path(mark, "dev").glob("strongbox-seal-*.log")):
        assert running.poll() is None, "it ended by itself"
        assert time.monotonic() < ends, "no pod was started"
        time.sleep(0.2)
    before = _namespaces()
    os.kill(running.pid, signal.SIGKILL)
    running.wait(10)
    ends = time.monotonic() + 10
    while mark in _everything_that_runs():
        assert time.monotonic() < ends, "processes of it are left"
        time.sleep(0.2)
    assert _namespaces() <= before
    assert not Path("/run/rehearsal").exists()


def _everything_that_runs() -> str:
    return subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True, timeout=10
    ).stdout


def _namespaces() -> set[str]:
    """Those of networks that have names on this machine itself."""
    place = Path("/run/netns")
    return {one.name for one in place.iterdir()} if place.exists() else set()


def test_who_is_not_root_is_told_and_it_is_no_success() -> None:
    script = (
        "import os, sys; from tests.rehearsal import outer; os.setresuid(65534, 65534, 65534)\n"
        "try: outer.require()\nexcept outer.CannotRehearse as error: sys.exit(f'said: {error}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "said: a rehearsal needs root" in done.stderr


def test_where_no_namespaces_are_given_it_is_told_and_is_no_success() -> None:
    without = ["setpriv", "--bounding-set", "-sys_admin"]
    done = subprocess.run(
        [*without, *_RUN, "dev", "--short"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert "rehearsal: a rehearsal needs namespaces" in done.stderr
    assert "all held" not in done.stdout
